// The losses of matched masks at points on the CPU: threads and dtypes.
#include <ATen/ATen.h>

#include "../point_mask_losses.h"
#include "kernels.h"
#include "mask_maps.h"

namespace ddep {

namespace {

at::Tensor prepare(const at::Tensor& points, const MaskPairs& pairs) {
  return points.to(compute_type(pairs.mask_logits[0])).contiguous();
}

template <typename T>
const T* points_of_row(const at::Tensor& points, int64_t row) {
  return points.const_data_ptr<T>() + row * points.size(2) * 2;
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> point_mask_losses_cpu(const MaskPairs& pairs,
                                                         const at::Tensor& points_given) {
  const PairRows rows(pairs);
  const at::Tensor points = prepare(points_given, pairs);
  return compute_losses(rows, [&](int64_t row, const auto& map, const TrueMask& mask,
                                  auto* cross_entropy, auto* dice) {
    using T = std::remove_reference_t<decltype(*dice)>;
    kernels<T>().point_mask_losses.forward(map, mask, points_of_row<T>(points, row), points.size(2),
                                           cross_entropy, dice);
  });
}

std::vector<at::Tensor> point_mask_losses_backward_cpu(const at::Tensor& grad_cross_entropy,
                                                       const at::Tensor& grad_dice,
                                                       const MaskPairs& pairs,
                                                       const at::Tensor& points_given) {
  const PairRows rows(pairs);
  const at::Tensor points = prepare(points_given, pairs);
  return compute_gradients(rows, grad_cross_entropy, grad_dice,
                           [&](int64_t row, const auto& map, const TrueMask& mask,
                               auto of_cross_entropy, auto of_dice, auto* grad_map) {
                             using T = decltype(of_dice);
                             kernels<T>().point_mask_losses.backward(
                                 map, mask, points_of_row<T>(points, row), points.size(2),
                                 of_cross_entropy, of_dice, grad_map);
                           });
}

}  // namespace ddep
