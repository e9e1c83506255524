// Multi-scale deformable attention on CUDA: dtypes and launches.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAGuard.h>

#include <cstdint>

#include "../ms_deform_attn.h"
#include "host_launch.cuh"
#include "launch.cuh"

namespace ddep {

namespace {

using at::Tensor;

constexpr auto kName = "ms_deform_attn";

// Contiguous and aligned for vector loads, which a slice of a larger tensor may not be.
Tensor prepare(const Tensor& tensor) {
  const Tensor contiguous = tensor.contiguous();
  const bool aligned = reinterpret_cast<uintptr_t>(contiguous.const_data_ptr()) % 16 == 0;
  return aligned ? contiguous : contiguous.clone();
}

at::ScalarType compute_type(const Tensor& value) {
  return value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// The common dtype of places and weights: value's, or the dtype of the computation.
at::ScalarType sampling_type(const Arguments& a) {
  const at::ScalarType type = a.value.scalar_type();
  const bool same = a.places.scalar_type() == type && a.weights.scalar_type() == type;
  return same ? type : compute_type(a.value);
}

Arguments prepare(const Arguments& a) {
  TORCH_CHECK(a.value.is_cuda(), "ms_deform_attn: value is on ", a.value.device(),
              "; expected a CUDA device");
  const at::ScalarType type = sampling_type(a);
  Arguments ready = {
      prepare(a.value),           a.shapes, a.starts, a.reference, prepare(a.places.to(type)),
      prepare(a.weights.to(type))};
  if (a.reference.defined()) ready.reference = prepare(a.reference.to(compute_type(a.value)));
  const bool on_host = a.shapes.is_cpu() && a.starts.is_cpu() && a.starts.size(0) <= kMaxHostLevels;
  const at::Device device = on_host ? at::Device(at::kCPU) : a.value.device();
  ready.shapes = a.shapes.to(device).contiguous();
  ready.starts = a.starts.to(device).contiguous();
  return ready;
}

Levels levels_of(const Arguments& a) {
  Levels levels = {};
  levels.count = static_cast<int>(a.starts.size(0));
  const int64_t* shapes = a.shapes.const_data_ptr<int64_t>();
  const int64_t* starts = a.starts.const_data_ptr<int64_t>();
  if (a.shapes.is_cuda()) {
    levels.shapes = shapes, levels.starts = starts;
    return levels;
  }
  for (int64_t i = 0; i < a.starts.size(0); ++i) {
    levels.known[i] = make_level(shapes[2 * i], shapes[2 * i + 1], starts[i], a.value.size(1));
  }
  return levels;
}

template <typename U, typename real>
Problem<U, real> problem_of(const Arguments& a) {
  Problem<U, real> p = {};
  p.images = a.value.size(0);
  p.tokens = narrow(kName, "the number of value's tokens", a.value.size(1));
  p.heads = narrow(kName, "the number of heads", a.value.size(2));
  p.channels = narrow(kName, "the number of channels", a.value.size(3));
  narrow(kName, "the number of heads times channels", a.value.size(2) * a.value.size(3));
  const int64_t image = a.value.size(1) * a.value.size(2) * a.value.size(3);
  TORCH_CHECK(image < kOutside, "ms_deform_attn: value has ", image,
              " numbers an image; the CUDA kernels take fewer than ", kOutside);
  p.queries = narrow(kName, "the number of queries", a.places.size(1));
  p.points = narrow(kName, "the number of points", a.places.size(4));
  p.samples =
      narrow(kName, "the number of levels times points", a.places.size(3) * a.places.size(4));
  p.levels = levels_of(a);
  p.reference = a.reference.defined() ? a.reference.const_data_ptr<real>() : nullptr;
  p.places = a.places.const_data_ptr<U>();
  p.weights = a.weights.const_data_ptr<U>();
  return p;
}

// There is nothing to sample, or there are no samples.
bool is_empty(const Arguments& a) { return a.value.numel() == 0 || a.weights.numel() == 0; }

constexpr Launch kLaunch = {kName, kThreads};

// Calls run(T, U) with a number of value's type and one of the type of places and weights.
template <typename Run>
void with_types(const Arguments& a, const Run& run) {
  const at::ScalarType type = a.value.scalar_type();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, type, "ms_deform_attn", [&] {
    if (a.places.scalar_type() == type) {
      run(scalar_t(), scalar_t());
    } else {
      run(scalar_t(), at::opmath_type<scalar_t>());
    }
  });
}

}  // namespace

Tensor forward_cuda(const Arguments& given) {
  const c10::cuda::CUDAGuard guard(given.value.device());
  const auto sizes = {given.value.size(0), given.places.size(1),
                      given.value.size(2) * given.value.size(3)};
  if (is_empty(given)) return at::zeros(sizes, given.value.options());
  const Arguments a = prepare(given);
  Tensor output = at::empty(sizes, a.value.options());
  with_types(a, [&](auto of_value, auto of_sampling) {
    using T = decltype(of_value);
    launch_forward(problem_of<decltype(of_sampling), at::opmath_type<T>>(a),
                   a.value.const_data_ptr<T>(), output.mutable_data_ptr<T>(), kLaunch);
  });
  return output;
}

Gradients backward_cuda(const Tensor& grad_output_given, const Arguments& given) {
  // Threads add to grad_value in any order.
  at::globalContext().alertNotDeterministic("ms_deform_attn_backward_cuda");
  const c10::cuda::CUDAGuard guard(given.value.device());
  const bool fused = given.reference.defined();
  if (is_empty(given)) {
    return {at::zeros_like(given.value), fused ? at::zeros_like(given.reference) : Tensor(),
            at::zeros_like(given.places), at::zeros_like(given.weights)};
  }
  const Arguments a = prepare(given);
  const Tensor grad_output = prepare(grad_output_given.to(a.value.scalar_type()));
  const auto real_options = a.value.options().dtype(compute_type(a.value));
  Tensor grad_value = at::zeros(a.value.sizes(), real_options);
  Tensor grad_reference = fused ? at::empty_like(a.reference) : Tensor();
  Tensor grad_places = at::empty_like(a.places), grad_weights = at::empty_like(a.weights);
  const bool separate = fused && grad_weights.scalar_type() != compute_type(a.value);
  Tensor grad_attention = separate ? at::empty(a.weights.sizes(), real_options) : grad_weights;
  Tensor exact_places = separate ? at::empty(a.places.sizes(), real_options) : Tensor();
  with_types(a, [&](auto of_value, auto of_sampling) {
    using T = decltype(of_value);
    using U = decltype(of_sampling);
    using real = at::opmath_type<T>;
    BackwardOutputs<U, real> out = {};
    out.value = grad_value.mutable_data_ptr<real>();
    out.places = grad_places.mutable_data_ptr<U>();
    out.weights = grad_weights.mutable_data_ptr<U>();
    if (fused) out.attention = grad_attention.mutable_data_ptr<real>();
    if (separate) out.exact_places = exact_places.mutable_data_ptr<real>();
    launch_backward(problem_of<U, real>(a), a.value.const_data_ptr<T>(),
                    grad_output.const_data_ptr<T>(), out,
                    fused ? grad_reference.mutable_data_ptr<real>() : nullptr, kLaunch);
  });
  if (fused) grad_reference = grad_reference.to(given.reference.scalar_type());
  return {grad_value.to(given.value.scalar_type()), grad_reference,
          grad_places.to(given.places.scalar_type()), grad_weights.to(given.weights.scalar_type())};
}

}  // namespace ddep
