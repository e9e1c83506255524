// The losses of matched masks at points on the CPU: threads and dtypes.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "../point_mask_losses.h"
#include "kernels.h"
#include "mask_maps.h"

namespace ddep {

std::tuple<at::Tensor, at::Tensor> point_mask_losses_cpu(const MaskPairs& pairs,
                                                         const at::Tensor& points_given) {
  const at::ScalarType type = compute_type(pairs.mask_logits[0]);
  const PairRows rows(pairs);
  const at::Tensor points = points_given.to(type).contiguous();
  at::Tensor cross_entropy = at::empty(pairs.images.sizes(), points.options());
  at::Tensor dice = at::empty_like(cross_entropy);
  const int64_t count = points.size(2);
  AT_DISPATCH_FLOATING_TYPES(type, "point_mask_losses", [&] {
    const scalar_t* at = points.const_data_ptr<scalar_t>();
    scalar_t* to_cross_entropy = cross_entropy.mutable_data_ptr<scalar_t>();
    scalar_t* to_dice = dice.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, rows.count(), 1, [&](int64_t begin, int64_t end) {
      std::vector<scalar_t> map;
      for (int64_t row = begin; row < end; ++row) {
        kernels<scalar_t>().point_mask_losses.forward(rows.map(row, map), rows.mask(row),
                                                      at + row * count * 2, count,
                                                      to_cross_entropy + row, to_dice + row);
      }
    });
  });
  return {cross_entropy, dice};
}

std::vector<at::Tensor> point_mask_losses_backward_cpu(const at::Tensor& grad_cross_entropy_given,
                                                       const at::Tensor& grad_dice_given,
                                                       const MaskPairs& pairs,
                                                       const at::Tensor& points_given) {
  const at::ScalarType type = compute_type(pairs.mask_logits[0]);
  const PairRows rows(pairs);
  const at::Tensor points = points_given.to(type).contiguous();
  const at::Tensor grad_cross_entropy = grad_cross_entropy_given.to(type).contiguous();
  const at::Tensor grad_dice = grad_dice_given.to(type).contiguous();
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& logits : pairs.mask_logits) {
    gradients.push_back(at::zeros(logits.sizes(), logits.options()));
  }
  const int64_t count = points.size(2);
  // A thread adds all that a predicted mask receives.
  const auto [order, bounds] = rows.groups();
  AT_DISPATCH_FLOATING_TYPES(
      type, "point_mask_losses_backward", [&, &order = order, &bounds = bounds] {
        const scalar_t* at = points.const_data_ptr<scalar_t>();
        const scalar_t* of_cross_entropy = grad_cross_entropy.const_data_ptr<scalar_t>();
        const scalar_t* of_dice = grad_dice.const_data_ptr<scalar_t>();
        at::parallel_for(0, static_cast<int64_t>(bounds.size()) - 1, 1,
                         [&](int64_t begin, int64_t end) {
                           std::vector<scalar_t> map, grad_map;
                           std::vector<PointChunk<scalar_t>> buffer;
                           for (int64_t group = begin; group < end; ++group) {
                             const int64_t first = order[bounds[group]];
                             const MaskMap<scalar_t> logits = rows.map(first, map);
                             grad_map.assign(map.size(), scalar_t(0));
                             for (int64_t i = bounds[group]; i < bounds[group + 1]; ++i) {
                               const int64_t row = order[i];
                               kernels<scalar_t>().point_mask_losses.backward(
                                   logits, rows.mask(row), at + row * count * 2, count,
                                   of_cross_entropy[row], of_dice[row], buffer, grad_map.data());
                             }
                             copy_gradient(grad_map, rows.image(first), rows.query(first),
                                           gradients[rows.layer(first)]);
                           }
                         });
      });
  return gradients;
}

}  // namespace ddep
