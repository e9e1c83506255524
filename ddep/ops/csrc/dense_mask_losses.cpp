// The losses of matched masks over all pixels as PyTorch operators. Autocast changes nothing: the
// losses are float32 for all lower types. The outputs' shapes are registered in ../fake.py.
#include "dense_mask_losses.h"

#include "mask_losses_operator.h"

namespace ddep {

namespace {

struct AtPixels {
  static constexpr const char* name = "dense_mask_losses";
  static constexpr const char* qualified = "ddep::dense_mask_losses";
  static constexpr const char* backward = "ddep::dense_mask_losses_backward";
};

using Operator = MaskLosses<AtPixels>;

}  // namespace

TORCH_LIBRARY_FRAGMENT(ddep, library) {
  library.def(
      "dense_mask_losses(Tensor[] mask_logits, Tensor images, Tensor queries, Tensor masks, "
      "Tensor targets) -> (Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "dense_mask_losses_backward(Tensor grad_focal, Tensor grad_dice, Tensor[] mask_logits, "
      "Tensor images, Tensor queries, Tensor masks, Tensor targets) -> Tensor[]",
      {at::Tag::pt2_compliant_tag});
}

#define DDEP_REGISTER(key, forward, backward)                                         \
  TORCH_LIBRARY_IMPL(ddep, key, library) {                                            \
    library.impl("dense_mask_losses", Operator::checked<forward>);                    \
    library.impl("dense_mask_losses_backward", Operator::checked_backward<backward>); \
  }
DDEP_REGISTER(CPU, dense_mask_losses_cpu, dense_mask_losses_backward_cpu)
#if defined(DDEP_WITH_CUDA)
DDEP_REGISTER(CUDA, dense_mask_losses_cuda, dense_mask_losses_backward_cuda)
#endif
#undef DDEP_REGISTER

TORCH_LIBRARY_IMPL(ddep, Autograd, library) {
  library.impl("dense_mask_losses", Operator::autograd);
  library.impl("dense_mask_losses_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace ddep
