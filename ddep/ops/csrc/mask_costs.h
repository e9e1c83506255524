// Matching costs of masks: declarations that the back ends share.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace ddep {

// The arguments of both operators. Targets of all images lie side by side; an image's predictions
// are compared with its own targets only.
struct MaskCostArguments {
  at::TensorList mask_logits;   // L of (B, Q, h, w) floating, all of one dtype and shape
  at::Tensor masks;             // (T, H, W) bool or uint8, values 0 and 1
  at::IntArrayRef num_targets;  // of each of the B images; their sum is T
  at::Tensor points;            // (B, P, 2) floating, x and y; undefined: at all pixels
};

// The back ends' functions take arguments that have been checked, and return the cost that follows
// the mask loss and the dice loss, both (L, Q, T): float64 if the logits are, else float32. At
// points, that cost is the cross entropy; at all pixels, it is the focal loss and the masks are of
// the predictions' size.
using MaskCosts = std::tuple<at::Tensor, at::Tensor>;
MaskCosts mask_costs_cpu(const MaskCostArguments& arguments);
MaskCosts mask_costs_cuda(const MaskCostArguments& arguments);

}  // namespace ddep
