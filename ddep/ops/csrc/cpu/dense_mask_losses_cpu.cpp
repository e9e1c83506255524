// The losses of matched masks over all pixels on the CPU: threads and dtypes.
#include <ATen/ATen.h>

#include "../dense_mask_losses.h"
#include "kernels.h"
#include "mask_maps.h"

namespace ddep {

std::tuple<at::Tensor, at::Tensor> dense_mask_losses_cpu(const MaskPairs& pairs) {
  const PairRows rows(pairs);
  return compute_losses(
      rows, [](int64_t, const auto& map, const TrueMask& mask, auto* focal, auto* dice) {
        using T = std::remove_reference_t<decltype(*focal)>;
        kernels<T>().dense_mask_losses.forward(map, mask, focal, dice);
      });
}

std::vector<at::Tensor> dense_mask_losses_backward_cpu(const at::Tensor& grad_focal,
                                                       const at::Tensor& grad_dice,
                                                       const MaskPairs& pairs) {
  const PairRows rows(pairs);
  return compute_gradients(rows, grad_focal, grad_dice,
                           [](int64_t, const auto& map, const TrueMask& mask, auto of_focal,
                              auto of_dice, auto* grad_map) {
                             kernels<decltype(of_focal)>().dense_mask_losses.backward(
                                 map, mask, of_focal, of_dice, grad_map);
                           });
}

}  // namespace ddep
