// Losses of matched masks over all pixels: declarations that the back ends share.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>
#include <vector>

#include "mask_pairs.h"

namespace ddep {

// The back ends' functions take arguments that have been checked, indices on the CPU included.

// Focal loss averaged over the pixels of the true masks, to whose size predictions are brought
// bilinearly, and dice loss; both (L, N), float64 for float64 logits and float32 for others.
std::tuple<at::Tensor, at::Tensor> dense_mask_losses_cpu(const MaskPairs& pairs);
std::tuple<at::Tensor, at::Tensor> dense_mask_losses_cuda(const MaskPairs& pairs);

// The gradients of mask_logits.
std::vector<at::Tensor> dense_mask_losses_backward_cpu(const at::Tensor& grad_focal,
                                                       const at::Tensor& grad_dice,
                                                       const MaskPairs& pairs);
std::vector<at::Tensor> dense_mask_losses_backward_cuda(const at::Tensor& grad_focal,
                                                        const at::Tensor& grad_dice,
                                                        const MaskPairs& pairs);

}  // namespace ddep
