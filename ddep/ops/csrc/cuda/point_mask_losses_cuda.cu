// Losses of matched masks at points on CUDA: dtypes and launches.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAGuard.h>

#include "../point_mask_losses.h"
#include "mask_tensors.cuh"
#include "point_mask_losses.cuh"

namespace ddep {

using at::Tensor;

std::tuple<Tensor, Tensor> point_mask_losses_cuda(const MaskPairs& pairs,
                                                  const Tensor& given_points) {
  constexpr auto name = "point_mask_losses";
  const Tensor& first = pairs.mask_logits[0];
  const c10::cuda::CUDAGuard guard(first.device());
  const PairTensors tensors(name, pairs);
  const Tensor points = given_points.to(compute_type(first)).contiguous();
  const int count = narrow(name, "the number of points", points.size(2));
  Tensor cross_entropy = at::empty(pairs.images.sizes(), points.options());
  Tensor dice = at::empty_like(cross_entropy);
  if (tensors.rows() == 0) return {cross_entropy, dice};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, first.scalar_type(), name, [&] {
    using real = at::opmath_type<scalar_t>;
    Launch{name, kLossThreads}(point_mask_losses_kernel<scalar_t, real>, tensors.rows(),
                               tensors.arguments<scalar_t>(), points.const_data_ptr<real>(), count,
                               cross_entropy.mutable_data_ptr<real>(),
                               dice.mutable_data_ptr<real>());
  });
  return {cross_entropy, dice};
}

std::vector<Tensor> point_mask_losses_backward_cuda(const Tensor& given_grad_cross_entropy,
                                                    const Tensor& given_grad_dice,
                                                    const MaskPairs& pairs,
                                                    const Tensor& given_points) {
  constexpr auto name = "point_mask_losses_backward";
  // Threads add to a gradient in any order.
  at::globalContext().alertNotDeterministic("point_mask_losses_backward_cuda");
  const Tensor& first = pairs.mask_logits[0];
  const c10::cuda::CUDAGuard guard(first.device());
  const PairTensors tensors(name, pairs);
  const at::ScalarType type = compute_type(first);
  const Tensor points = given_points.to(type).contiguous();
  const Tensor grad_cross_entropy = given_grad_cross_entropy.to(type).contiguous();
  const Tensor grad_dice = given_grad_dice.to(type).contiguous();
  const int count = narrow(name, "the number of points", points.size(2));
  std::vector<Tensor> gradients = zeros_like_layers(pairs.mask_logits);
  if (tensors.rows() == 0) return gradients;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, first.scalar_type(), name, [&] {
    using real = at::opmath_type<scalar_t>;
    const Launch launch = {name, kLossThreads};
    GradientSums<real> sums = {};
    Tensor rows;
    if (first.scalar_type() != type) {
      rows = at::zeros({tensors.rows(), first.size(2), first.size(3)}, points.options());
      sums.rows = rows.mutable_data_ptr<real>();
    } else {
      sums.layers = mutable_layers_of<real>(gradients);
    }
    launch(point_mask_losses_backward_kernel<scalar_t, real>, tensors.rows(),
           tensors.arguments<scalar_t>(), points.const_data_ptr<real>(), count,
           grad_cross_entropy.const_data_ptr<real>(), grad_dice.const_data_ptr<real>(), sums);
    if (rows.defined()) {
      launch(write_gradients_kernel<scalar_t, real>, tensors.rows(),
             tensors.predictions.arguments<scalar_t>(), rows.const_data_ptr<real>(),
             mutable_layers_of<scalar_t>(gradients));
    }
  });
  return gradients;
}

}  // namespace ddep
