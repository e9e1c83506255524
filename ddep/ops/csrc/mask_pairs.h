// Matched pairs of predicted and true masks, which the mask losses compare, and their checks.
#pragma once

#include <ATen/core/Tensor.h>

namespace ddep {

// N pairs in each of L layers.
struct MaskPairs {
  at::TensorList mask_logits;  // L of (B, Q, h, w) floating, all of one dtype and shape
  at::Tensor images;           // (L, N) int64
  at::Tensor queries;          // (L, N) int64
  at::Tensor masks;            // (T, H, W) bool or uint8, values 0 and 1
  at::Tensor targets;          // (L, N) int64, rows of masks
};

// Each throws a ValueError that begins with the operator's name. Indices on a GPU are not compared
// with their bounds, which would wait for it.

void check_mask_logits(const char* name, at::TensorList mask_logits);
void check_masks(const char* name, const at::Tensor& masks, const at::Tensor& logits);
// Also checks mask_logits.
void check_predictions(const char* name, at::TensorList mask_logits, const at::Tensor& images,
                       const at::Tensor& queries);
void check_pairs(const char* name, const MaskPairs& pairs);
// (L, N, P, 2) floating
void check_points(const char* name, const at::Tensor& points, const MaskPairs& pairs);
// (L, N) floating
void check_gradient(const char* name, const char* argument, const at::Tensor& gradient,
                    const MaskPairs& pairs);

// float64 for float64, float32 for all other dtypes: the dtype of sums and losses.
at::ScalarType compute_type(const at::Tensor& logits);

}  // namespace ddep
