// Multi-scale deformable attention: declarations that the back ends share.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace ddep {

// The arguments of both operators. Fused: `reference` is defined (fractions of the level's size),
// `places` are offsets in pixels from it and `weights` are logits. Unfused: `places` are locations
// in [0, 1] and `weights` are attention.
struct Arguments {
  at::Tensor value;      // (N, S, M, D)
  at::Tensor shapes;     // (L, 2) int64: height, width
  at::Tensor starts;     // (L) int64
  at::Tensor reference;  // (N, Q, L, 2), or undefined
  at::Tensor places;     // (N, Q, M, L, P, 2)
  at::Tensor weights;    // (N, Q, M, L, P)
};

// The back ends' functions take arguments that have been checked.

// (N, Q, M * D), of value's dtype.
at::Tensor forward_cpu(const Arguments& arguments);
at::Tensor forward_cuda(const Arguments& arguments);

// Gradients of value, reference (undefined if unfused), places and weights.
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
Gradients backward_cpu(const at::Tensor& grad_output, const Arguments& arguments);
Gradients backward_cuda(const at::Tensor& grad_output, const Arguments& arguments);

}  // namespace ddep
