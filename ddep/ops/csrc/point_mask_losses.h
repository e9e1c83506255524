// Losses of matched masks at points: declarations that the back ends share.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>
#include <vector>

#include "mask_pairs.h"

namespace ddep {

// The back ends' functions take arguments that have been checked, indices on the CPU included.

// Cross entropy averaged over points, and dice loss; both (L, N), float64 for float64 logits and
// float32 for others. Points are (L, N, P, 2) floating, x and y as fractions of width and height.
std::tuple<at::Tensor, at::Tensor> point_mask_losses_cpu(const MaskPairs& pairs,
                                                         const at::Tensor& points);
std::tuple<at::Tensor, at::Tensor> point_mask_losses_cuda(const MaskPairs& pairs,
                                                          const at::Tensor& points);

// The gradients of mask_logits.
std::vector<at::Tensor> point_mask_losses_backward_cpu(const at::Tensor& grad_cross_entropy,
                                                       const at::Tensor& grad_dice,
                                                       const MaskPairs& pairs,
                                                       const at::Tensor& points);
std::vector<at::Tensor> point_mask_losses_backward_cuda(const at::Tensor& grad_cross_entropy,
                                                        const at::Tensor& grad_dice,
                                                        const MaskPairs& pairs,
                                                        const at::Tensor& points);

}  // namespace ddep
