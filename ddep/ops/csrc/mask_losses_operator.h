// What the operators of mask losses have in common: checks, and autograd for the predicted masks.
#pragma once

#include <ATen/ATen.h>
#include <torch/autograd.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "mask_pairs.h"

namespace ddep {

// `Kind::name` is the operator's name, `Kind::qualified` and `Kind::backward` the registered names.
// `Points` are the types of the arguments after the pairs: a tensor of points, or nothing.
template <typename Kind, typename... Points>
struct MaskLosses : torch::autograd::Function<MaskLosses<Kind, Points...>> {
  using Tensor = at::Tensor;
  using Losses = std::tuple<Tensor, Tensor>;
  using Variables = torch::autograd::variable_list;

  // ---- the operators, in terms of a back end's functions ----

  template <auto compute>
  static Losses checked(at::TensorList mask_logits, const Tensor& images, const Tensor& queries,
                        const Tensor& masks, const Tensor& targets, const Points&... points) {
    const MaskPairs pairs = {mask_logits, images, queries, masks, targets};
    check_pairs(Kind::name, pairs);
    (check_points(Kind::name, points, pairs), ...);
    return compute(pairs, points...);
  }

  template <auto compute>
  static std::vector<Tensor> checked_backward(const Tensor& grad_mask_loss, const Tensor& grad_dice,
                                              at::TensorList mask_logits, const Tensor& images,
                                              const Tensor& queries, const Tensor& masks,
                                              const Tensor& targets, const Points&... points) {
    const MaskPairs pairs = {mask_logits, images, queries, masks, targets};
    check_pairs(Kind::name, pairs);
    (check_points(Kind::name, points, pairs), ...);
    check_gradient(Kind::name, "the first loss's gradient", grad_mask_loss, pairs);
    check_gradient(Kind::name, "the dice loss's gradient", grad_dice, pairs);
    return compute(grad_mask_loss, grad_dice, pairs, points...);
  }

  // ---- autograd ----

  static Losses autograd(at::TensorList mask_logits, const Tensor& images, const Tensor& queries,
                         const Tensor& masks, const Tensor& targets, const Points&... points) {
    const Variables losses =
        MaskLosses::apply(mask_logits, images, queries, masks, targets, points...);
    return {losses[0], losses[1]};
  }

  static Variables forward(torch::autograd::AutogradContext* context, at::TensorList mask_logits,
                           const Tensor& images, const Tensor& queries, const Tensor& masks,
                           const Tensor& targets, const Points&... points) {
    at::AutoDispatchBelowADInplaceOrView guard;
    Variables saved = {images, queries, masks, targets, points...};
    saved.insert(saved.end(), mask_logits.begin(), mask_logits.end());
    context->save_for_backward(std::move(saved));
    // Looked up at the first use, when all operators are registered.
    static const auto found =
        find<Losses(at::TensorList, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                    const Points&...)>(Kind::qualified);
    auto [mask_loss, dice] = found.call(mask_logits, images, queries, masks, targets, points...);
    return {mask_loss, dice};
  }

  static Variables backward(torch::autograd::AutogradContext* context, Variables gradients) {
    static const auto found =
        find<std::vector<Tensor>(const Tensor&, const Tensor&, at::TensorList, const Tensor&,
                                 const Tensor&, const Tensor&, const Tensor&, const Points&...)>(
            Kind::backward);
    constexpr size_t others = 4 + sizeof...(Points);  // saved before mask_logits
    const Variables saved = context->get_saved_variables();
    const at::TensorList mask_logits = at::TensorList(saved).slice(others);
    Variables results;
    if constexpr (sizeof...(Points) == 1) {
      results = found.call(gradients[0], gradients[1], mask_logits, saved[0], saved[1], saved[2],
                           saved[3], saved[4]);
    } else {
      results = found.call(gradients[0], gradients[1], mask_logits, saved[0], saved[1], saved[2],
                           saved[3]);
    }
    results.resize(results.size() + others);  // the others have none
    return results;
  }

 private:
  template <typename Signature>
  static c10::TypedOperatorHandle<Signature> find(const char* name) {
    return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Signature>();
  }
};

}  // namespace ddep
