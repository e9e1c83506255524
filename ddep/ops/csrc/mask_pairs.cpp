#include "mask_pairs.h"

#include <ATen/ATen.h>

namespace ddep {

namespace {

void check_index(const char* name, const char* argument, const at::Tensor& index,
                 const at::Tensor& like, const at::Tensor& logits, int64_t end) {
  TORCH_CHECK_VALUE(index.scalar_type() == at::kLong, name, ": ", argument, " is ",
                    index.scalar_type(), "; expected int64");
  TORCH_CHECK_VALUE(index.device() == logits.device(), name, ": ", argument, " is on ",
                    index.device(), ", mask_logits on ", logits.device());
  TORCH_CHECK_VALUE(index.sizes() == like.sizes(), name, ": ", argument, " has shape ",
                    index.sizes(), "; expected that of images, ", like.sizes());
  if (!index.is_cpu() || index.numel() == 0) return;
  const auto [smallest, largest] = at::aminmax(index);
  const int64_t first = smallest.item<int64_t>(), last = largest.item<int64_t>();
  TORCH_CHECK_VALUE(first >= 0 && last < end, name, ": ", argument, " has values from ", first,
                    " to ", last, "; expected from 0 to ", end - 1);
}

// Kernels count the pixels of a mask, and some zeros around it, in 32 bits.
void check_size(const char* name, const char* argument, const at::Tensor& tensor) {
  const int64_t height = tensor.size(-2), width = tensor.size(-1);
  constexpr int64_t end = int64_t{1} << 30;
  TORCH_CHECK_VALUE(height > 0 && width > 0 && height < end / width, name, ": ", argument,
                    " has masks of ", height, " x ", width, "; expected from 1 to 2^30 pixels");
}

}  // namespace

void check_mask_logits(const char* name, at::TensorList mask_logits) {
  TORCH_CHECK_VALUE(!mask_logits.empty(), name, ": mask_logits is empty");
  const at::Tensor& first = mask_logits[0];
  TORCH_CHECK_VALUE(first.dim() == 4, name, ": mask_logits have ", first.dim(),
                    " dimensions; expected 4: (B, Q, h, w)");
  check_size(name, "mask_logits", first);
  TORCH_CHECK_VALUE(first.is_floating_point(), name, ": mask_logits are ", first.scalar_type(),
                    "; expected a floating dtype");
  for (const at::Tensor& logits : mask_logits) {
    TORCH_CHECK_VALUE(logits.sizes() == first.sizes(), name, ": mask_logits have the shapes ",
                      first.sizes(), " and ", logits.sizes(), "; expected one");
    TORCH_CHECK_VALUE(logits.scalar_type() == first.scalar_type(), name, ": mask_logits are ",
                      first.scalar_type(), " and ", logits.scalar_type(), "; expected one dtype");
    TORCH_CHECK_VALUE(logits.device() == first.device(), name, ": mask_logits are on ",
                      first.device(), " and ", logits.device(), "; expected one device");
  }
}

void check_masks(const char* name, const at::Tensor& masks, const at::Tensor& logits) {
  TORCH_CHECK_VALUE(masks.dim() == 3, name, ": masks has ", masks.dim(),
                    " dimensions; expected 3: (T, H, W)");
  check_size(name, "masks", masks);
  TORCH_CHECK_VALUE(masks.scalar_type() == at::kBool || masks.scalar_type() == at::kByte, name,
                    ": masks is ", masks.scalar_type(), "; expected bool or uint8");
  TORCH_CHECK_VALUE(masks.device() == logits.device(), name, ": masks is on ", masks.device(),
                    ", mask_logits on ", logits.device());
}

void check_predictions(const char* name, at::TensorList mask_logits, const at::Tensor& images,
                       const at::Tensor& queries) {
  check_mask_logits(name, mask_logits);
  const at::Tensor& logits = mask_logits[0];
  const auto layers = static_cast<int64_t>(mask_logits.size());
  TORCH_CHECK_VALUE(images.dim() == 2 && images.size(0) == layers, name, ": images has shape ",
                    images.sizes(), "; expected (L, N) with L = ", layers);
  check_index(name, "images", images, images, logits, logits.size(0));
  check_index(name, "queries", queries, images, logits, logits.size(1));
}

void check_pairs(const char* name, const MaskPairs& pairs) {
  check_predictions(name, pairs.mask_logits, pairs.images, pairs.queries);
  check_masks(name, pairs.masks, pairs.mask_logits[0]);
  check_index(name, "targets", pairs.targets, pairs.images, pairs.mask_logits[0],
              pairs.masks.size(0));
}

void check_points(const char* name, const at::Tensor& points, const MaskPairs& pairs) {
  TORCH_CHECK_VALUE(points.is_floating_point(), name, ": points is ", points.scalar_type(),
                    "; expected a floating dtype");
  TORCH_CHECK_VALUE(points.device() == pairs.mask_logits[0].device(), name, ": points is on ",
                    points.device(), ", mask_logits on ", pairs.mask_logits[0].device());
  TORCH_CHECK_VALUE(points.dim() == 4 && points.size(0) == pairs.images.size(0) &&
                        points.size(1) == pairs.images.size(1) && points.size(3) == 2,
                    name, ": points has shape ", points.sizes(),
                    "; expected (L, N, P, 2) with (L, N) = ", pairs.images.sizes());
}

void check_gradient(const char* name, const char* argument, const at::Tensor& gradient,
                    const MaskPairs& pairs) {
  TORCH_CHECK_VALUE(gradient.is_floating_point(), name, ": ", argument, " is ",
                    gradient.scalar_type(), "; expected a floating dtype");
  TORCH_CHECK_VALUE(gradient.device() == pairs.mask_logits[0].device(), name, ": ", argument,
                    " is on ", gradient.device(), ", mask_logits on ",
                    pairs.mask_logits[0].device());
  TORCH_CHECK_VALUE(gradient.sizes() == pairs.images.sizes(), name, ": ", argument, " has shape ",
                    gradient.sizes(), "; expected (L, N) = ", pairs.images.sizes());
}

at::ScalarType compute_type(const at::Tensor& logits) {
  return logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace ddep
