// The losses of matched masks at points as PyTorch operators: schemas, checks, autograd. Autocast
// changes nothing: the losses are float32 for all lower types. The outputs' shapes are registered
// in
// ../extension.py.
#include "point_mask_losses.h"

#include <ATen/ATen.h>
#include <torch/autograd.h>
#include <torch/library.h>

namespace ddep {

namespace {

using at::Tensor;
using at::TensorList;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Losses = std::tuple<Tensor, Tensor>;

constexpr const char* kName = "point_mask_losses";

// ---- the operators, for each back end ----

template <Losses (*forward)(const MaskPairs&, const Tensor&)>
Losses checked(TensorList mask_logits, const Tensor& images, const Tensor& queries,
               const Tensor& masks, const Tensor& targets, const Tensor& points) {
  const MaskPairs pairs = {mask_logits, images, queries, masks, targets};
  check_pairs(kName, pairs);
  check_points(kName, points, pairs);
  return forward(pairs, points);
}

template <std::vector<Tensor> (*backward)(const Tensor&, const Tensor&, const MaskPairs&,
                                          const Tensor&)>
std::vector<Tensor> checked(const Tensor& grad_cross_entropy, const Tensor& grad_dice,
                            TensorList mask_logits, const Tensor& images, const Tensor& queries,
                            const Tensor& masks, const Tensor& targets, const Tensor& points) {
  const MaskPairs pairs = {mask_logits, images, queries, masks, targets};
  check_pairs(kName, pairs);
  check_points(kName, points, pairs);
  check_gradient(kName, "grad_cross_entropy", grad_cross_entropy, pairs);
  check_gradient(kName, "grad_dice", grad_dice, pairs);
  return backward(grad_cross_entropy, grad_dice, pairs, points);
}

// ---- autograd ----

// Looked up at the first use, when all operators are registered.
const auto& forward_operator() {
  static const auto found = c10::Dispatcher::singleton()
                                .findSchemaOrThrow("ddep::point_mask_losses", "")
                                .typed<decltype(checked<point_mask_losses_cpu>)>();
  return found;
}

const auto& backward_operator() {
  static const auto found = c10::Dispatcher::singleton()
                                .findSchemaOrThrow("ddep::point_mask_losses_backward", "")
                                .typed<decltype(checked<point_mask_losses_backward_cpu>)>();
  return found;
}

struct PointMaskLosses : torch::autograd::Function<PointMaskLosses> {
  static variable_list forward(AutogradContext* context, TensorList mask_logits,
                               const Tensor& images, const Tensor& queries, const Tensor& masks,
                               const Tensor& targets, const Tensor& points) {
    at::AutoDispatchBelowADInplaceOrView guard;
    variable_list saved = {images, queries, masks, targets, points};
    saved.insert(saved.end(), mask_logits.begin(), mask_logits.end());
    context->save_for_backward(std::move(saved));
    auto [cross_entropy, dice] =
        forward_operator().call(mask_logits, images, queries, masks, targets, points);
    return {cross_entropy, dice};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    variable_list results =
        backward_operator().call(gradients[0], gradients[1], TensorList(saved).slice(5), saved[0],
                                 saved[1], saved[2], saved[3], saved[4]);
    results.resize(results.size() + 5);  // none for the others
    return results;
  }
};

Losses autograd(TensorList mask_logits, const Tensor& images, const Tensor& queries,
                const Tensor& masks, const Tensor& targets, const Tensor& points) {
  const variable_list losses =
      PointMaskLosses::apply(mask_logits, images, queries, masks, targets, points);
  return {losses[0], losses[1]};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(ddep, library) {
  library.def(
      "point_mask_losses(Tensor[] mask_logits, Tensor images, Tensor queries, Tensor masks, "
      "Tensor targets, Tensor points) -> (Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "point_mask_losses_backward(Tensor grad_cross_entropy, Tensor grad_dice, "
      "Tensor[] mask_logits, Tensor images, Tensor queries, Tensor masks, Tensor targets, "
      "Tensor points) -> Tensor[]",
      {at::Tag::pt2_compliant_tag});
}

#define DDEP_REGISTER(key, forward, backward)                      \
  TORCH_LIBRARY_IMPL(ddep, key, library) {                         \
    library.impl("point_mask_losses", checked<forward>);           \
    library.impl("point_mask_losses_backward", checked<backward>); \
  }
DDEP_REGISTER(CPU, point_mask_losses_cpu, point_mask_losses_backward_cpu)
#if defined(DDEP_WITH_CUDA)
DDEP_REGISTER(CUDA, point_mask_losses_cuda, point_mask_losses_backward_cuda)
#endif
#undef DDEP_REGISTER

TORCH_LIBRARY_IMPL(ddep, Autograd, library) {
  library.impl("point_mask_losses", autograd);
  library.impl("point_mask_losses_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace ddep
