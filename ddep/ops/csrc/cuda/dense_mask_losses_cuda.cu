// Losses of matched masks over all pixels on CUDA: dtypes and launches.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAGuard.h>

#include "../dense_mask_losses.h"
#include "dense_mask_losses.cuh"
#include "mask_tensors.cuh"

namespace ddep {

namespace {

template <typename real>
PairResizing<real> resizing_of(const MaskPairs& pairs) {
  const at::Tensor &from = pairs.mask_logits[0], &to = pairs.masks;
  for (const int axis : {1, 2}) {
    narrow("dense_mask_losses", "twice the sides of a predicted and a true mask, multiplied,",
           2 * from.size(axis + 1) * to.size(axis));
  }
  return {{static_cast<int>(from.size(2)), static_cast<int>(to.size(1))},
          {static_cast<int>(from.size(3)), static_cast<int>(to.size(2))}};
}

}  // namespace

using at::Tensor;

std::tuple<Tensor, Tensor> dense_mask_losses_cuda(const MaskPairs& pairs) {
  constexpr auto name = "dense_mask_losses";
  const Tensor& first = pairs.mask_logits[0];
  const c10::cuda::CUDAGuard guard(first.device());
  const PairTensors tensors(name, pairs);
  Tensor focal = at::empty(pairs.images.sizes(), first.options().dtype(compute_type(first)));
  Tensor dice = at::empty_like(focal);
  if (tensors.rows() == 0) return {focal, dice};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, first.scalar_type(), name, [&] {
    using real = at::opmath_type<scalar_t>;
    Launch{name, kDenseThreads}(dense_mask_losses_kernel<scalar_t, real>, tensors.rows(),
                                tensors.arguments<scalar_t>(), resizing_of<real>(pairs),
                                focal.mutable_data_ptr<real>(), dice.mutable_data_ptr<real>());
  });
  return {focal, dice};
}

std::vector<Tensor> dense_mask_losses_backward_cuda(const Tensor& given_grad_focal,
                                                    const Tensor& given_grad_dice,
                                                    const MaskPairs& pairs) {
  constexpr auto name = "dense_mask_losses_backward";
  const Tensor& first = pairs.mask_logits[0];
  const c10::cuda::CUDAGuard guard(first.device());
  const PairTensors tensors(name, pairs);
  const at::ScalarType type = compute_type(first);
  const Tensor grad_focal = given_grad_focal.to(type).contiguous();
  const Tensor grad_dice = given_grad_dice.to(type).contiguous();
  const std::vector<Tensor> gradients = zeros_like_layers(pairs.mask_logits);
  if (tensors.rows() == 0) return gradients;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, first.scalar_type(), name, [&] {
    using real = at::opmath_type<scalar_t>;
    Launch{name, kDenseThreads}(dense_mask_losses_backward_kernel<scalar_t, real>, tensors.rows(),
                                tensors.arguments<scalar_t>(), resizing_of<real>(pairs),
                                grad_focal.const_data_ptr<real>(), grad_dice.const_data_ptr<real>(),
                                mutable_layers_of<scalar_t>(gradients));
  });
  return gradients;
}

}  // namespace ddep
