// Attention inside windows as PyTorch operators: schemas, checks, autograd, autocast. For the CPU
// only; the output's shape is registered in ../fake.py.
#include "window_attention.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/autograd.h>
#include <torch/library.h>

namespace ddep {

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

void check_shape(const char* name, const Tensor& tensor, at::IntArrayRef expected,
                 const char* meaning) {
  TORCH_CHECK_VALUE(tensor.sizes() == expected, "window_attention: ", name, " has shape ",
                    tensor.sizes(), "; expected ", meaning, " = ", expected);
}

void check_floating(const char* name, const Tensor& tensor, const Tensor& qkv) {
  TORCH_CHECK_VALUE(tensor.is_floating_point(), "window_attention: ", name, " is ",
                    tensor.scalar_type(), "; expected a floating dtype");
  TORCH_CHECK_VALUE((tensor.scalar_type() == at::kDouble) == (qkv.scalar_type() == at::kDouble),
                    "window_attention: ", name, " is ", tensor.scalar_type(), " and qkv ",
                    qkv.scalar_type(), "; float64 does not mix with other dtypes");
}

void check_arguments(const WindowAttentionArguments& a) {
  TORCH_CHECK_VALUE(a.qkv.dim() == 2, "window_attention: qkv has ", a.qkv.dim(),
                    " dimensions; expected 2: (T, 3 * M * D)");
  TORCH_CHECK_VALUE(a.bias.dim() == 3, "window_attention: bias has ", a.bias.dim(),
                    " dimensions; expected 3: (M, N, N)");
  const int64_t channels = a.qkv.size(1), heads = a.bias.size(0), positions = a.bias.size(1);
  TORCH_CHECK_VALUE(heads > 0 && channels % (3 * heads) == 0, "window_attention: qkv has ",
                    channels, " channels; expected 3 for each channel of the ", heads,
                    " heads that bias has");
  check_shape("bias", a.bias, {heads, positions, positions}, "(M, N, N)");
  check_shape("slots", a.slots, {a.qkv.size(0)}, "(T)");
  check_floating("qkv", a.qkv, a.qkv);
  check_floating("bias", a.bias, a.qkv);
  TORCH_CHECK_VALUE(a.slots.scalar_type() == at::kLong, "window_attention: slots is ",
                    a.slots.scalar_type(), "; expected int64");
  if (a.padding) {
    check_shape("padding", *a.padding, {channels}, "(3 * M * D)");
    check_floating("padding", *a.padding, a.qkv);
  }
  if (a.mask) {
    const auto kinds = static_cast<int64_t>(a.counts.size());
    check_shape("mask", *a.mask, {kinds, positions, positions}, "(K, N, N)");
    check_floating("mask", *a.mask, a.qkv);
  }
  for (const int64_t count : a.counts) {
    TORCH_CHECK_VALUE(count >= 0, "window_attention: counts has ", count, "; expected 0 or more");
  }
}

// ---- the operators ----

Tensor forward_on_cpu(const Tensor& qkv, const OptionalTensor& padding, const Tensor& bias,
                      const OptionalTensor& mask, const Tensor& slots, at::IntArrayRef counts,
                      double scale) {
  const WindowAttentionArguments a = {qkv, padding, bias, mask, slots, counts, scale};
  check_arguments(a);
  return window_attention_cpu(a);
}

WindowAttentionGradients backward_on_cpu(const Tensor& grad_output, const Tensor& qkv,
                                         const OptionalTensor& padding, const Tensor& bias,
                                         const OptionalTensor& mask, const Tensor& slots,
                                         at::IntArrayRef counts, double scale) {
  const WindowAttentionArguments a = {qkv, padding, bias, mask, slots, counts, scale};
  check_arguments(a);
  check_shape("grad_output", grad_output, {qkv.size(0), qkv.size(1) / 3}, "(T, M * D)");
  check_floating("grad_output", grad_output, qkv);
  return window_attention_backward_cpu(grad_output, a);
}

// ---- autograd ----

using Forward = Tensor(const Tensor&, const OptionalTensor&, const Tensor&, const OptionalTensor&,
                       const Tensor&, c10::SymIntArrayRef, double);
using Backward = WindowAttentionGradients(const Tensor&, const Tensor&, const OptionalTensor&,
                                          const Tensor&, const OptionalTensor&, const Tensor&,
                                          c10::SymIntArrayRef, double);

// Looked up at the first use, when all operators are registered.
const auto& forward_operator() {
  static const auto found =
      c10::Dispatcher::singleton().findSchemaOrThrow("ddep::window_attention", "").typed<Forward>();
  return found;
}

const auto& backward_operator() {
  static const auto found = c10::Dispatcher::singleton()
                                .findSchemaOrThrow("ddep::window_attention_backward", "")
                                .typed<Backward>();
  return found;
}

OptionalTensor optional(const Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

struct WindowAttentionFunction : torch::autograd::Function<WindowAttentionFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& qkv, const OptionalTensor& padding,
                        const Tensor& bias, const OptionalTensor& mask, const Tensor& slots,
                        const std::vector<c10::SymInt>& counts, double scale) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward(
        {qkv, padding.value_or(Tensor()), bias, mask.value_or(Tensor()), slots});
    context->saved_data["counts"] = counts;
    context->saved_data["scale"] = scale;
    return forward_operator().call(qkv, padding, bias, mask, slots, counts, scale);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto s = context->get_saved_variables();
    const auto counts = context->saved_data["counts"].toSymIntVector();
    auto [qkv, padding, bias] =
        backward_operator().call(gradients[0], s[0], optional(s[1]), s[2], optional(s[3]), s[4],
                                 counts, context->saved_data["scale"].toDouble());
    if (!s[1].defined()) padding = Tensor();
    return {qkv, padding, bias, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

Tensor autograd(const Tensor& qkv, const OptionalTensor& padding, const Tensor& bias,
                const OptionalTensor& mask, const Tensor& slots, c10::SymIntArrayRef counts,
                double scale) {
  return WindowAttentionFunction::apply(qkv, padding, bias, mask, slots, counts.vec(), scale);
}

// ---- autocast: queries, keys and values in the low precision, the bias as it is ----

Tensor autocast(const Tensor& qkv, const OptionalTensor& padding, const Tensor& bias,
                const OptionalTensor& mask, const Tensor& slots, c10::SymIntArrayRef counts,
                double scale) {
  c10::impl::ExcludeDispatchKeyGuard guard(c10::DispatchKey::AutocastCPU);
  const auto cast = [](const Tensor& tensor) {
    constexpr auto device = c10::DeviceType::CPU;
    return at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), tensor, device);
  };
  return forward_operator().call(cast(qkv), padding ? OptionalTensor(cast(*padding)) : padding,
                                 bias, mask, slots, counts, scale);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(ddep, library) {
  library.def(
      "window_attention(Tensor qkv, Tensor? padding, Tensor bias, Tensor? mask, Tensor slots, "
      "SymInt[] counts, float scale) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "window_attention_backward(Tensor grad_output, Tensor qkv, Tensor? padding, Tensor bias, "
      "Tensor? mask, Tensor slots, SymInt[] counts, float scale) -> (Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(ddep, CPU, library) {
  library.impl("window_attention", forward_on_cpu);
  library.impl("window_attention_backward", backward_on_cpu);
}

TORCH_LIBRARY_IMPL(ddep, Autograd, library) {
  library.impl("window_attention", autograd);
  library.impl("window_attention_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(ddep, AutocastCPU, library) { library.impl("window_attention", autocast); }

}  // namespace ddep
