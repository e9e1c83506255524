// Matching costs of masks on CUDA: dtypes and launches.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>

#include "../mask_costs.h"
#include "mask_costs.cuh"
#include "mask_tensors.cuh"

namespace ddep {

namespace {

using at::Tensor;

constexpr auto kName = "mask_costs";

TargetRanges ranges_of(at::IntArrayRef num_targets) {
  TORCH_CHECK(num_targets.size() <= kMaxImages, kName, ": the batch has ", num_targets.size(),
              " images; CUDA kernels take at most ", kMaxImages);
  TargetRanges ranges = {};
  for (const int64_t count : num_targets) {
    const int first = ranges.first[ranges.num_images++];
    ranges.first[ranges.num_images] = narrow(kName, "the number of targets", first + count);
    ranges.largest = std::max(ranges.largest, static_cast<int>(count));
  }
  return ranges;
}

template <typename T, typename real, bool kAtPoints>
CostProblem<T, real, kAtPoints> problem_of(const MaskCostArguments& a,
                                           const std::vector<Tensor>& layers, const Tensor& labels,
                                           const MaskCosts& costs) {
  using Label = typename CostProblem<T, real, kAtPoints>::Label;
  const Tensor& first = layers[0];
  CostProblem<T, real, kAtPoints> p = {};
  p.layers = layers_of<T>(layers);
  p.num_layers = static_cast<int>(layers.size());
  p.num_queries = narrow(kName, "the number of queries", first.size(1));
  p.height = static_cast<int>(first.size(2)), p.width = static_cast<int>(first.size(3));
  p.labels = static_cast<const Label*>(labels.const_data_ptr());
  p.targets = ranges_of(a.num_targets);
  p.num_targets = p.targets.first[p.targets.num_images];
  p.cost = std::get<0>(costs).mutable_data_ptr<real>();
  p.dice = std::get<1>(costs).mutable_data_ptr<real>();
  return p;
}

// points (B, P, 2)
template <typename T, typename real>
void compare_at_points(const MaskCostArguments& a, const std::vector<Tensor>& layers,
                       const Tensor& masks, const Tensor& points, const MaskCosts& costs) {
  const Launch launch = {kName, kCostThreads};
  Tensor labels = at::empty({masks.size(0), points.size(1)}, points.options());
  auto p = problem_of<T, real, true>(a, layers, labels, costs);
  p.points = points.const_data_ptr<real>();
  p.num_points = narrow(kName, "the number of points", points.size(1));
  narrow(kName, "the number of pixels of a true mask", masks.size(1) * masks.size(2));
  const int64_t chunks = (points.size(1) + kCostThreads - 1) / kCostThreads;
  if (chunks > 0) {
    launch(sample_targets_kernel<real>, masks.size(0) * chunks,
           static_cast<const uint8_t*>(masks.const_data_ptr()), static_cast<int>(masks.size(1)),
           static_cast<int>(masks.size(2)), p.targets, p.points, p.num_points,
           labels.mutable_data_ptr<real>());
  }
  launch(mask_costs_kernel<T, real, true>, cost_blocks(p), p);
}

template <typename T, typename real>
void compare_all_pixels(const MaskCostArguments& a, const std::vector<Tensor>& layers,
                        const Tensor& masks, const MaskCosts& costs) {
  auto p = problem_of<T, real, false>(a, layers, masks, costs);
  p.num_points = p.height * p.width;
  Launch{kName, kCostThreads}(mask_costs_kernel<T, real, false>, cost_blocks(p), p);
}

}  // namespace

MaskCosts mask_costs_cuda(const MaskCostArguments& a) {
  const Tensor& first = a.mask_logits[0];
  const c10::cuda::CUDAGuard guard(first.device());
  check_layers(kName, a.mask_logits);
  const at::ScalarType type = first.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto layers = static_cast<int64_t>(a.mask_logits.size());
  Tensor cost = at::empty({layers, first.size(1), a.masks.size(0)}, first.options().dtype(type));
  const MaskCosts costs = {cost, at::empty_like(cost)};
  if (cost.numel() == 0) return costs;
  const std::vector<Tensor> logits = contiguous_layers(a.mask_logits);
  const Tensor masks = a.masks.contiguous();
  const Tensor points = a.points.defined() ? a.points.to(type).contiguous() : a.points;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, first.scalar_type(), kName, [&] {
    using real = at::opmath_type<scalar_t>;
    if (points.defined()) {
      compare_at_points<scalar_t, real>(a, logits, masks, points, costs);
    } else {
      compare_all_pixels<scalar_t, real>(a, logits, masks, costs);
    }
  });
  return costs;
}

}  // namespace ddep
