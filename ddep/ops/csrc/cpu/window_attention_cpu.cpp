// Attention inside windows on the CPU: threads, dtypes and instruction sets.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "../window_attention.h"
#include "kernels.h"
#include "window_attention_problem.h"

namespace ddep {

namespace {

// Contiguous tensors of the dtype that is computed in: half types are converted to float.
struct Prepared {
  WindowSizes sizes;
  at::Tensor qkv, padding, bias, mask, tokens, kinds;
};

WindowSizes sizes_of(const WindowAttentionArguments& a, int64_t bytes) {
  WindowSizes s;
  s.windows = std::accumulate(a.counts.begin(), a.counts.end(), int64_t{0});
  s.heads = a.bias.size(0), s.positions = a.bias.size(1);
  s.channels = a.qkv.size(1) / (3 * s.heads);
  const int64_t lanes = kRowBytes / bytes;
  s.columns = (s.positions + lanes - 1) / lanes * lanes;
  // A chunk of windows sums the bias' gradient on its own. The number of chunks depends on nothing
  // but the sizes, so results do not depend on the number of threads. Enough of them to share out,
  // not so many that the sums take much memory.
  const int64_t most = std::max<int64_t>(1, 256 / s.heads);
  s.windows_per_chunk = std::max<int64_t>(4, (s.windows + most - 1) / most);
  s.chunks = (s.windows + s.windows_per_chunk - 1) / s.windows_per_chunk;
  return s;
}

// (W, N): the token at each position, or -1.
at::Tensor tokens_of(const at::Tensor& slots, const WindowSizes& s) {
  const at::Tensor contiguous = slots.contiguous();
  at::Tensor tokens = at::full({s.windows, s.positions}, -1, slots.options());
  const int64_t* slot = contiguous.const_data_ptr<int64_t>();
  int64_t* token = tokens.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < slots.size(0); ++i) {
    TORCH_CHECK_VALUE(slot[i] >= 0 && slot[i] < s.windows * s.positions && token[slot[i]] < 0,
                      "window_attention: slots has ", slot[i],
                      "; expected different numbers from "
                      "0 to below counts' sum times N = ",
                      s.windows * s.positions);
    token[slot[i]] = i;
  }
  return tokens;
}

// Pads the last dimension to `columns`.
at::Tensor pad(const at::Tensor& tensor, at::ScalarType type, int64_t columns, double value) {
  return at::constant_pad_nd(tensor.to(type), {0, columns - tensor.size(-1)}, value).contiguous();
}

Prepared prepare(const WindowAttentionArguments& a) {
  const at::ScalarType type = a.qkv.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  Prepared p;
  p.sizes = sizes_of(a, static_cast<int64_t>(c10::elementSize(type)));
  p.qkv = a.qkv.to(type).contiguous();
  p.padding =
      a.padding ? a.padding->to(type).contiguous() : at::zeros({a.qkv.size(1)}, p.qkv.options());
  p.bias = pad(a.bias, type, p.sizes.columns, -std::numeric_limits<double>::infinity());
  if (a.mask) p.mask = pad(*a.mask, type, p.sizes.columns, 0);
  p.tokens = tokens_of(a.slots, p.sizes);
  p.kinds = at::empty({p.sizes.windows}, a.slots.options());
  int64_t* kind = p.kinds.mutable_data_ptr<int64_t>();
  for (size_t i = 0; i < a.counts.size(); ++i) {
    kind = std::fill_n(kind, a.counts[i], static_cast<int64_t>(i));
  }
  return p;
}

template <typename T>
WindowInput<T> input_of(const Prepared& p, double scale) {
  return {p.qkv.const_data_ptr<T>(),
          p.padding.const_data_ptr<T>(),
          p.bias.const_data_ptr<T>(),
          p.mask.defined() ? p.mask.const_data_ptr<T>() : nullptr,
          p.tokens.const_data_ptr<int64_t>(),
          p.kinds.const_data_ptr<int64_t>(),
          static_cast<T>(scale)};
}

// Sums over chunks, in their order: (chunks, M, size) -> (M, size).
template <typename T>
void sum_chunks(const at::Tensor& parts, const WindowSizes& s, at::Tensor& sums) {
  const int64_t size = sums.numel() / s.heads;
  const T* from = parts.const_data_ptr<T>();
  T* to = sums.mutable_data_ptr<T>();
  at::parallel_for(0, s.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = 0; chunk < s.chunks; ++chunk) {
      for (int64_t i = begin * size; i < end * size; ++i) to[i] += from[chunk * s.heads * size + i];
    }
  });
}

// The pairs of a window and a head that are worth a thread: some 100,000 multiplications.
int64_t grain(const WindowSizes& s) {
  const int64_t pair = 2 * s.positions * s.positions * s.channels;
  return std::max<int64_t>(1, 100000 / std::max<int64_t>(1, pair));
}

}  // namespace

at::Tensor window_attention_cpu(const WindowAttentionArguments& a) {
  const Prepared p = prepare(a);
  const WindowSizes& s = p.sizes;
  at::Tensor output = at::empty({a.qkv.size(0), s.heads * s.channels}, p.qkv.options());
  AT_DISPATCH_FLOATING_TYPES(p.qkv.scalar_type(), "window_attention", [&] {
    const WindowInput<scalar_t> input = input_of<scalar_t>(p, a.scale);
    scalar_t* out = output.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, s.windows * s.heads, grain(s), [&](int64_t begin, int64_t end) {
      kernels<scalar_t>().window_attention.forward(s, input, out, begin, end);
    });
  });
  return output.to(a.qkv.scalar_type());
}

WindowAttentionGradients window_attention_backward_cpu(const at::Tensor& grad_output_given,
                                                       const WindowAttentionArguments& a) {
  const Prepared p = prepare(a);
  const WindowSizes& s = p.sizes;
  const at::Tensor grad_output = grad_output_given.to(p.qkv.scalar_type()).contiguous();
  at::Tensor grad_qkv = at::empty_like(p.qkv);
  at::Tensor grad_padding = at::zeros({s.heads, 3, s.channels}, p.qkv.options());
  at::Tensor grad_bias = at::zeros_like(p.bias);
  const at::Tensor padding_parts = at::zeros({s.chunks, s.heads, 3, s.channels}, p.qkv.options());
  const at::Tensor bias_parts =
      at::zeros({s.chunks, s.heads, s.positions, s.columns}, p.qkv.options());
  AT_DISPATCH_FLOATING_TYPES(p.qkv.scalar_type(), "window_attention_backward", [&] {
    const WindowInput<scalar_t> input = input_of<scalar_t>(p, a.scale);
    const scalar_t* gradient = grad_output.const_data_ptr<scalar_t>();
    const WindowGradients<scalar_t> gradients = {grad_qkv.mutable_data_ptr<scalar_t>(),
                                                 padding_parts.mutable_data_ptr<scalar_t>(),
                                                 bias_parts.mutable_data_ptr<scalar_t>()};
    at::parallel_for(0, s.chunks * s.heads, 1, [&](int64_t begin, int64_t end) {
      kernels<scalar_t>().window_attention.backward(s, input, gradient, gradients, begin, end);
    });
    sum_chunks<scalar_t>(padding_parts, s, grad_padding);
    sum_chunks<scalar_t>(bias_parts, s, grad_bias);
  });
  const at::ScalarType padding_type = (a.padding ? *a.padding : a.qkv).scalar_type();
  return {grad_qkv.to(a.qkv.scalar_type()), grad_padding.transpose(0, 1).flatten().to(padding_type),
          grad_bias.narrow(2, 0, s.positions).to(a.bias.scalar_type()).contiguous()};
}

}  // namespace ddep
