// Multi-scale deformable attention as PyTorch operators: schemas, checks, autograd, autocast. The
// output's shape is registered in ../fake.py, where tracing a graph allows sizes on the host
// with values on a GPU.
#include "ms_deform_attn.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/autograd.h>
#include <torch/library.h>

namespace ddep {

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check_sizes(const char* name, const Tensor& tensor, at::SymIntArrayRef expected,
                 const char* meaning) {
  TORCH_CHECK_VALUE(tensor.sym_sizes() == expected, "ms_deform_attn: ", name, " has shape ",
                    tensor.sym_sizes(), "; expected ", meaning, " = ", expected);
}

void check_floating(const char* name, const Tensor& tensor, const Tensor& value) {
  TORCH_CHECK_VALUE(tensor.device() == value.device(), "ms_deform_attn: ", name, " is on ",
                    tensor.device(), ", value on ", value.device());
  TORCH_CHECK_VALUE(tensor.is_floating_point(), "ms_deform_attn: ", name, " is ",
                    tensor.scalar_type(), "; expected a floating dtype");
  TORCH_CHECK_VALUE((tensor.scalar_type() == at::kDouble) == (value.scalar_type() == at::kDouble),
                    "ms_deform_attn: ", name, " is ", tensor.scalar_type(), " and value ",
                    value.scalar_type(), "; float64 does not mix with other dtypes");
}

void check_index(const char* name, const Tensor& tensor, const Tensor& value) {
  TORCH_CHECK_VALUE(tensor.device().is_cpu() || tensor.device() == value.device(),
                    "ms_deform_attn: ", name, " is on ", tensor.device(), ", value on ",
                    value.device(), "; expected it there or on the CPU");
  TORCH_CHECK_VALUE(tensor.scalar_type() == at::kLong, "ms_deform_attn: ", name, " is ",
                    tensor.scalar_type(), "; expected int64");
}

// The levels must fill value, or the kernels would read beyond it. Only levels on the host are
// checked: reading them from a GPU would wait for it, and its kernels check for themselves.
void check_levels(const Arguments& a) {
  if (!a.shapes.device().is_cpu() || !a.starts.device().is_cpu()) return;
  const Tensor shapes = a.shapes.contiguous(), starts = a.starts.contiguous();
  const int64_t tokens = a.value.size(1);
  int64_t sum = 0;
  for (int64_t level = 0; level < starts.size(0); ++level) {
    const int64_t height = shapes.const_data_ptr<int64_t>()[2 * level];
    const int64_t width = shapes.const_data_ptr<int64_t>()[2 * level + 1];
    const int64_t start = starts.const_data_ptr<int64_t>()[level];
    TORCH_CHECK_VALUE(height >= 0 && width >= 0 && start >= 0 && start <= tokens &&
                          (width == 0 || height <= (tokens - start) / width),
                      "ms_deform_attn: level ", level, " is ", height, " x ", width,
                      " in spatial_shapes and begins at ", start,
                      " in level_start_index; that does not fit into value's S = ", tokens);
    sum += height * width;
  }
  TORCH_CHECK_VALUE(sum == tokens, "ms_deform_attn: value has S = ", tokens,
                    "; expected the sum of H * W over spatial_shapes = ", sum);
}

void check_arguments(const Arguments& a) {
  TORCH_CHECK_VALUE(a.value.dim() == 4, "ms_deform_attn: value has ", a.value.dim(),
                    " dimensions; expected 4: (N, S, M, D)");
  const char* places = a.reference.defined() ? "sampling_offsets" : "sampling_locations";
  const char* weights = a.reference.defined() ? "attention_logits" : "attention_weights";
  TORCH_CHECK_VALUE(a.places.dim() == 6, "ms_deform_attn: ", places, " has ", a.places.dim(),
                    " dimensions; expected 6: (N, Q, M, L, P, 2)");
  const auto n = a.value.sym_size(0), m = a.value.sym_size(2);
  const auto q = a.places.sym_size(1), l = a.places.sym_size(3), p = a.places.sym_size(4);
  check_sizes(places, a.places, {n, q, m, l, p, 2}, "(N, Q, M, L, P, 2)");
  check_sizes(weights, a.weights, {n, q, m, l, p}, "(N, Q, M, L, P)");
  check_sizes("spatial_shapes", a.shapes, {l, 2}, "(L, 2)");
  check_sizes("level_start_index", a.starts, {l}, "(L,)");
  check_floating("value", a.value, a.value);
  check_floating(places, a.places, a.value);
  check_floating(weights, a.weights, a.value);
  check_index("spatial_shapes", a.shapes, a.value);
  check_index("level_start_index", a.starts, a.value);
  if (a.reference.defined()) {
    check_sizes("reference_points", a.reference, {n, q, l, 2}, "(N, Q, L, 2)");
    check_floating("reference_points", a.reference, a.value);
  }
}

// ---- the operators, for each back end ----

template <Tensor (*forward)(const Arguments&)>
Tensor checked(const Arguments& a) {
  check_arguments(a);
  check_levels(a);
  return forward(a);
}

template <Gradients (*backward)(const Tensor&, const Arguments&)>
Gradients checked(const Tensor& grad_output, const Arguments& a) {
  check_arguments(a);
  check_levels(a);
  const auto n = a.value.sym_size(0), q = a.places.sym_size(1);
  const auto channels = a.value.sym_size(2) * a.value.sym_size(3);
  check_sizes("grad_output", grad_output, {n, q, channels}, "(N, Q, M * D)");
  check_floating("grad_output", grad_output, a.value);
  return backward(grad_output, a);
}

// The four schemas below, in terms of a back end's two functions.
template <Tensor (*forward)(const Arguments&)>
Tensor plain(const Tensor& value, const Tensor& shapes, const Tensor& starts,
             const Tensor& locations, const Tensor& weights) {
  return forward({value, shapes, starts, {}, locations, weights});
}

template <Tensor (*forward)(const Arguments&)>
Tensor fused(const Tensor& value, const Tensor& shapes, const Tensor& starts,
             const Tensor& reference, const Tensor& offsets, const Tensor& logits) {
  return forward({value, shapes, starts, reference, offsets, logits});
}

template <Gradients (*backward)(const Tensor&, const Arguments&)>
std::tuple<Tensor, Tensor, Tensor> plain_backward(const Tensor& grad_output, const Tensor& value,
                                                  const Tensor& shapes, const Tensor& starts,
                                                  const Tensor& locations, const Tensor& weights) {
  auto [grad_value, unused, grad_locations, grad_weights] =
      backward(grad_output, {value, shapes, starts, {}, locations, weights});
  return {grad_value, grad_locations, grad_weights};
}

template <Gradients (*backward)(const Tensor&, const Arguments&)>
Gradients fused_backward(const Tensor& grad_output, const Tensor& value, const Tensor& shapes,
                         const Tensor& starts, const Tensor& reference, const Tensor& offsets,
                         const Tensor& logits) {
  return backward(grad_output, {value, shapes, starts, reference, offsets, logits});
}

// ---- autograd ----

template <typename Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// Looked up at the first use, when all operators are registered.
const auto& plain_operator() {
  static const auto found = find<decltype(plain<forward_cpu>)>("ddep::ms_deform_attn");
  return found;
}

const auto& fused_operator() {
  static const auto found = find<decltype(fused<forward_cpu>)>("ddep::ms_deform_attn_fused");
  return found;
}

const auto& plain_backward_operator() {
  static const auto found =
      find<decltype(plain_backward<backward_cpu>)>("ddep::ms_deform_attn_backward");
  return found;
}

const auto& fused_backward_operator() {
  static const auto found =
      find<decltype(fused_backward<backward_cpu>)>("ddep::ms_deform_attn_fused_backward");
  return found;
}

struct PlainFunction : torch::autograd::Function<PlainFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& value, const Tensor& shapes,
                        const Tensor& starts, const Tensor& locations, const Tensor& weights) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({value, shapes, starts, locations, weights});
    return plain_operator().call(value, shapes, starts, locations, weights);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto s = context->get_saved_variables();
    auto [value, locations, weights] =
        plain_backward_operator().call(gradients[0], s[0], s[1], s[2], s[3], s[4]);
    return {value, Tensor(), Tensor(), locations, weights};
  }
};

struct FusedFunction : torch::autograd::Function<FusedFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& value, const Tensor& shapes,
                        const Tensor& starts, const Tensor& reference, const Tensor& offsets,
                        const Tensor& logits) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({value, shapes, starts, reference, offsets, logits});
    return fused_operator().call(value, shapes, starts, reference, offsets, logits);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto s = context->get_saved_variables();
    auto [value, reference, offsets, logits] =
        fused_backward_operator().call(gradients[0], s[0], s[1], s[2], s[3], s[4], s[5]);
    return {value, Tensor(), Tensor(), reference, offsets, logits};
  }
};

Tensor plain_autograd(const Tensor& value, const Tensor& shapes, const Tensor& starts,
                      const Tensor& locations, const Tensor& weights) {
  return PlainFunction::apply(value, shapes, starts, locations, weights);
}

Tensor fused_autograd(const Tensor& value, const Tensor& shapes, const Tensor& starts,
                      const Tensor& reference, const Tensor& offsets, const Tensor& logits) {
  return FusedFunction::apply(value, shapes, starts, reference, offsets, logits);
}

// ---- autocast: value in the low precision, coordinates and weights as they are ----

template <c10::DispatchKey key, c10::DeviceType device>
Tensor plain_autocast(const Tensor& value, const Tensor& shapes, const Tensor& starts,
                      const Tensor& locations, const Tensor& weights) {
  c10::impl::ExcludeDispatchKeyGuard guard(key);
  const auto type = at::autocast::get_autocast_dtype(device);
  return plain_operator().call(at::autocast::cached_cast(type, value, device), shapes, starts,
                               locations, weights);
}

template <c10::DispatchKey key, c10::DeviceType device>
Tensor fused_autocast(const Tensor& value, const Tensor& shapes, const Tensor& starts,
                      const Tensor& reference, const Tensor& offsets, const Tensor& logits) {
  c10::impl::ExcludeDispatchKeyGuard guard(key);
  const auto type = at::autocast::get_autocast_dtype(device);
  return fused_operator().call(at::autocast::cached_cast(type, value, device), shapes, starts,
                               reference, offsets, logits);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(ddep, library) {
  const auto define = [&](const char* schema) {
    library.def(schema, {at::Tag::pt2_compliant_tag});
  };
  define(
      "ms_deform_attn(Tensor value, Tensor spatial_shapes, Tensor level_start_index, "
      "Tensor sampling_locations, Tensor attention_weights) -> Tensor");
  define(
      "ms_deform_attn_backward(Tensor grad_output, Tensor value, Tensor spatial_shapes, "
      "Tensor level_start_index, Tensor sampling_locations, Tensor attention_weights) "
      "-> (Tensor, Tensor, Tensor)");
  define(
      "ms_deform_attn_fused(Tensor value, Tensor spatial_shapes, Tensor level_start_index, "
      "Tensor reference_points, Tensor sampling_offsets, Tensor attention_logits) -> Tensor");
  define(
      "ms_deform_attn_fused_backward(Tensor grad_output, Tensor value, Tensor spatial_shapes, "
      "Tensor level_start_index, Tensor reference_points, Tensor sampling_offsets, "
      "Tensor attention_logits) -> (Tensor, Tensor, Tensor, Tensor)");
}

#define DDEP_REGISTER(key, forward, backward)                                \
  TORCH_LIBRARY_IMPL(ddep, key, library) {                                   \
    library.impl("ms_deform_attn", plain<forward>);                          \
    library.impl("ms_deform_attn_backward", plain_backward<backward>);       \
    library.impl("ms_deform_attn_fused", fused<forward>);                    \
    library.impl("ms_deform_attn_fused_backward", fused_backward<backward>); \
  }
DDEP_REGISTER(CPU, checked<forward_cpu>, checked<backward_cpu>)
#if defined(DDEP_WITH_CUDA)
DDEP_REGISTER(CUDA, checked<forward_cuda>, checked<backward_cuda>)
#endif
#undef DDEP_REGISTER

TORCH_LIBRARY_IMPL(ddep, Autograd, library) {
  library.impl("ms_deform_attn", plain_autograd);
  library.impl("ms_deform_attn_fused", fused_autograd);
  library.impl("ms_deform_attn_backward", torch::autograd::autogradNotImplementedFallback());
  library.impl("ms_deform_attn_fused_backward", torch::autograd::autogradNotImplementedFallback());
}

#define DDEP_REGISTER_AUTOCAST(key, device)                                              \
  TORCH_LIBRARY_IMPL(ddep, key, library) {                                               \
    library.impl("ms_deform_attn", plain_autocast<c10::DispatchKey::key, device>);       \
    library.impl("ms_deform_attn_fused", fused_autocast<c10::DispatchKey::key, device>); \
  }
DDEP_REGISTER_AUTOCAST(AutocastCPU, c10::DeviceType::CPU)
DDEP_REGISTER_AUTOCAST(AutocastCUDA, c10::DeviceType::CUDA)
#undef DDEP_REGISTER_AUTOCAST

}  // namespace ddep
