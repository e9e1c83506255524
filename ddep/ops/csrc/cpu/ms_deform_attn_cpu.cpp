// Multi-scale deformable attention on the CPU: threads, dtypes and instruction sets.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "../ms_deform_attn.h"
#include "kernels.h"
#include "ms_deform_attn_problem.h"

namespace ddep {

namespace {

// Half types are computed in float: converting once costs little compared with gathering.
at::ScalarType compute_type(const at::Tensor& value) {
  return value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor prepare(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.defined() ? tensor.to(type).contiguous() : tensor;
}

Arguments prepare(const Arguments& a) {
  const at::ScalarType type = compute_type(a.value);
  return {prepare(a.value, type),     a.shapes.contiguous(),   a.starts.contiguous(),
          prepare(a.reference, type), prepare(a.places, type), prepare(a.weights, type)};
}

Sizes sizes_of(const Arguments& a) {
  return {a.value.size(0),
          a.value.size(1),
          a.value.size(2),
          a.value.size(3),
          a.places.size(1),
          a.places.size(3),
          a.places.size(4),
          a.shapes.const_data_ptr<int64_t>(),
          a.starts.const_data_ptr<int64_t>()};
}

template <typename T>
Sampling<T> sampling_of(const Arguments& a) {
  return {a.reference.defined() ? a.reference.const_data_ptr<T>() : nullptr,
          a.places.const_data_ptr<T>(), a.weights.const_data_ptr<T>(), a.reference.defined()};
}

// The kernels count an image's tokens in 32 bits, and indices outside may be twice as large.
void check_tokens(const Sizes& sizes) {
  TORCH_CHECK_VALUE(sizes.tokens < int64_t{1} << 30, "ms_deform_attn: value has S = ", sizes.tokens,
                    "; expected fewer than 2^30 on the CPU");
}

// The rows that are worth a thread: some 100,000 multiplications.
int64_t grain(const Sizes& s) {
  const int64_t row = s.heads * s.levels * s.points * 4 * s.channels;
  return std::max<int64_t>(1, 100000 / std::max<int64_t>(1, row));
}

}  // namespace

at::Tensor forward_cpu(const Arguments& given) {
  const Arguments a = prepare(given);
  const Sizes s = sizes_of(a);
  check_tokens(s);
  at::Tensor output = at::empty({s.images, s.queries, s.heads * s.channels}, a.value.options());
  AT_DISPATCH_FLOATING_TYPES(a.value.scalar_type(), "ms_deform_attn", [&] {
    const Sampling<scalar_t> sampling = sampling_of<scalar_t>(a);
    const scalar_t* value = a.value.const_data_ptr<scalar_t>();
    scalar_t* out = output.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, s.images * s.queries, grain(s), [&](int64_t begin, int64_t end) {
      kernels<scalar_t>().ms_deform_attn.forward(s, sampling, value, out, begin, end);
    });
  });
  return output.to(given.value.scalar_type());
}

Gradients backward_cpu(const at::Tensor& grad_output_given, const Arguments& given) {
  const Arguments a = prepare(given);
  const Sizes s = sizes_of(a);
  check_tokens(s);
  const at::Tensor grad_output = prepare(grad_output_given, a.value.scalar_type());
  at::Tensor grad_value = at::empty_like(a.value);
  at::Tensor grad_reference = a.reference.defined() ? at::zeros_like(a.reference) : at::Tensor();
  at::Tensor grad_places = at::empty_like(a.places), grad_weights = at::empty_like(a.weights);
  // The second pass reuses the first pass's attention instead of computing the softmax again.
  const at::Tensor attention = a.reference.defined() ? at::empty_like(a.weights) : a.weights;
  AT_DISPATCH_FLOATING_TYPES(a.value.scalar_type(), "ms_deform_attn_backward", [&] {
    const Sampling<scalar_t> sampling = sampling_of<scalar_t>(a);
    const scalar_t* gradient = grad_output.const_data_ptr<scalar_t>();
    const scalar_t* value = a.value.const_data_ptr<scalar_t>();
    scalar_t* to_value = grad_value.mutable_data_ptr<scalar_t>();
    scalar_t* to_reference =
        grad_reference.defined() ? grad_reference.mutable_data_ptr<scalar_t>() : nullptr;
    scalar_t* to_places = grad_places.mutable_data_ptr<scalar_t>();
    scalar_t* to_weights = grad_weights.mutable_data_ptr<scalar_t>();
    scalar_t* to_attention =
        a.reference.defined() ? attention.mutable_data_ptr<scalar_t>() : nullptr;
    at::parallel_for(0, s.images * s.queries, grain(s), [&](int64_t begin, int64_t end) {
      kernels<scalar_t>().ms_deform_attn.backward_sampling(s, sampling, value, gradient,
                                                           to_reference, to_places, to_weights,
                                                           to_attention, begin, end);
    });
    const Sampling<scalar_t> softened = {sampling.reference, sampling.places,
                                         attention.const_data_ptr<scalar_t>(), false};
    // Columns share no memory, so the result does not depend on the order of the threads.
    at::parallel_for(0, s.images * s.heads * channel_blocks(s), 1, [&](int64_t begin, int64_t end) {
      kernels<scalar_t>().ms_deform_attn.backward_value(s, softened, gradient, to_value, begin,
                                                        end);
    });
  });
  if (grad_reference.defined()) grad_reference = grad_reference.to(given.reference.scalar_type());
  return {grad_value.to(given.value.scalar_type()), grad_reference,
          grad_places.to(given.places.scalar_type()), grad_weights.to(given.weights.scalar_type())};
}

}  // namespace ddep
