// The losses of matched masks at points as PyTorch operators. Autocast changes nothing: the losses
// are float32 for all lower types. The outputs' shapes are registered in ../fake.py.
#include "point_mask_losses.h"

#include "mask_losses_operator.h"

namespace ddep {

namespace {

struct AtPoints {
  static constexpr const char* name = "point_mask_losses";
  static constexpr const char* qualified = "ddep::point_mask_losses";
  static constexpr const char* backward = "ddep::point_mask_losses_backward";
};

using Operator = MaskLosses<AtPoints, at::Tensor>;

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

#define DDEP_REGISTER(key, forward, backward)                                         \
  TORCH_LIBRARY_IMPL(ddep, key, library) {                                            \
    library.impl("point_mask_losses", Operator::checked<forward>);                    \
    library.impl("point_mask_losses_backward", Operator::checked_backward<backward>); \
  }
DDEP_REGISTER(CPU, point_mask_losses_cpu, point_mask_losses_backward_cpu)
#if defined(DDEP_WITH_CUDA)
DDEP_REGISTER(CUDA, point_mask_losses_cuda, point_mask_losses_backward_cuda)
#endif
#undef DDEP_REGISTER

TORCH_LIBRARY_IMPL(ddep, Autograd, library) {
  library.impl("point_mask_losses", Operator::autograd);
  library.impl("point_mask_losses_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace ddep
