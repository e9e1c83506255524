// Attention inside windows of a feature map: declarations that the back ends share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace ddep {

// T tokens, M heads of D channels, W windows of N positions, K kinds of windows.
struct WindowAttentionArguments {
  at::Tensor qkv;                     // (T, 3 * M * D)
  std::optional<at::Tensor> padding;  // (3 * M * D): the qkv of a position without a token
  at::Tensor bias;                    // (M, N, N), added to the logits
  std::optional<at::Tensor> mask;     // (K, N, N), added to the logits of a kind of windows
  at::Tensor slots;                   // (T) int64: each token's place among the W * N positions
  at::IntArrayRef counts;             // (K): windows of each kind, in their order; their sum is W
  double scale;                       // of the products of queries and keys
};

// The back end's functions take arguments that have been checked.

// (T, M * D), of qkv's dtype.
at::Tensor window_attention_cpu(const WindowAttentionArguments& arguments);

// Gradients of qkv, padding and bias.
using WindowAttentionGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
WindowAttentionGradients window_attention_backward_cpu(const at::Tensor& grad_output,
                                                       const WindowAttentionArguments& arguments);

}  // namespace ddep
