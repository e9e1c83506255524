// Matching costs of masks as PyTorch operators: schemas and checks. The outputs' shapes are
// registered in ../fake.py. Under autocast, inputs are taken as they are.
#include "mask_costs.h"

#include <ATen/ATen.h>
#include <torch/autograd.h>
#include <torch/library.h>

#include "mask_pairs.h"

namespace ddep {

namespace {

using at::Tensor;

// Each image's number of targets; they lie side by side in masks.
void check_num_targets(const char* name, at::IntArrayRef num_targets, const Tensor& masks,
                       const Tensor& logits) {
  TORCH_CHECK_VALUE(static_cast<int64_t>(num_targets.size()) == logits.size(0), name,
                    ": num_targets has ", num_targets.size(),
                    " elements; expected B = ", logits.size(0));
  int64_t sum = 0;
  for (const int64_t count : num_targets) {
    TORCH_CHECK_VALUE(count >= 0, name, ": num_targets is ", num_targets,
                      "; expected no negative number");
    sum += count;
  }
  TORCH_CHECK_VALUE(sum == masks.size(0), name, ": num_targets sum to ", sum,
                    "; expected masks' T = ", masks.size(0));
}

void check_points_of_images(const char* name, const Tensor& points, const Tensor& logits) {
  TORCH_CHECK_VALUE(points.is_floating_point(), name, ": points is ", points.scalar_type(),
                    "; expected a floating dtype");
  TORCH_CHECK_VALUE(points.device() == logits.device(), name, ": points is on ", points.device(),
                    ", mask_logits on ", logits.device());
  TORCH_CHECK_VALUE(points.dim() == 3 && points.size(0) == logits.size(0) && points.size(2) == 2,
                    name, ": points has shape ", points.sizes(),
                    "; expected (B, P, 2) with B = ", logits.size(0));
}

void check_arguments(const char* name, at::TensorList mask_logits, const Tensor& masks,
                     at::IntArrayRef num_targets) {
  check_mask_logits(name, mask_logits);
  check_masks(name, masks, mask_logits[0]);
  check_num_targets(name, num_targets, masks, mask_logits[0]);
}

template <MaskCosts (*compute)(const MaskCostArguments&)>
MaskCosts point_mask_costs(at::TensorList mask_logits, const Tensor& masks,
                           at::IntArrayRef num_targets, const Tensor& points) {
  check_arguments("point_mask_costs", mask_logits, masks, num_targets);
  check_points_of_images("point_mask_costs", points, mask_logits[0]);
  return compute({mask_logits, masks, num_targets, points});
}

template <MaskCosts (*compute)(const MaskCostArguments&)>
MaskCosts dense_mask_costs(at::TensorList mask_logits, const Tensor& masks,
                           at::IntArrayRef num_targets) {
  check_arguments("dense_mask_costs", mask_logits, masks, num_targets);
  const int64_t height = mask_logits[0].size(2), width = mask_logits[0].size(3);
  Tensor resized = masks.to(at::kByte);
  // Resizing refuses a batch without masks.
  resized = masks.size(0) > 0 ? at::upsample_nearest2d(resized.unsqueeze(1), {height, width})
                              : resized.new_empty({0, 1, height, width});
  return compute({mask_logits, resized.squeeze(1), num_targets, {}});
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(ddep, library) {
  library.def(
      "point_mask_costs(Tensor[] mask_logits, Tensor masks, int[] num_targets, Tensor points) "
      "-> (Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
  library.def(
      "dense_mask_costs(Tensor[] mask_logits, Tensor masks, int[] num_targets) "
      "-> (Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}

#define DDEP_REGISTER(key, compute)                              \
  TORCH_LIBRARY_IMPL(ddep, key, library) {                       \
    library.impl("point_mask_costs", point_mask_costs<compute>); \
    library.impl("dense_mask_costs", dense_mask_costs<compute>); \
  }
DDEP_REGISTER(CPU, mask_costs_cpu)
#if defined(DDEP_WITH_CUDA)
DDEP_REGISTER(CUDA, mask_costs_cuda)
#endif
#undef DDEP_REGISTER

// Costs have no gradient: to ask for one is an error.
TORCH_LIBRARY_IMPL(ddep, Autograd, library) {
  library.impl("point_mask_costs", torch::autograd::autogradNotImplementedFallback());
  library.impl("dense_mask_costs", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace ddep
