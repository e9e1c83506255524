// Drawing of points on CUDA: dtypes and launches.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>

#include "../point_drawing.h"
#include "mask_tensors.cuh"
#include "point_drawing.cuh"

namespace ddep {

namespace {

using at::Tensor;

Seed seed_of(const Tensor& seed) {
  const auto* value = seed.const_data_ptr<int64_t>();
  return seed.is_cuda() ? Seed{value, 0} : Seed{nullptr, *value};
}

// As many blocks of uncertain_points_kernel as run at once on a multiprocessor.
constexpr int kBlocksEach = 3;

}  // namespace

Tensor uniform_points_cuda(const Tensor& seed, int64_t rows, int64_t num_points) {
  constexpr auto name = "uniform_points";
  const c10::cuda::CUDAGuard guard(seed.device());
  Tensor points = at::empty({rows, num_points, 2}, seed.options().dtype(at::kFloat));
  if (points.numel() == 0) return points;
  const int count = narrow(name, "num_points", num_points);
  const int64_t threads = rows * ((num_points + 1) / 2);
  Launch{name, kUniformThreads}(uniform_points_kernel,
                                (threads + kUniformThreads - 1) / kUniformThreads, seed_of(seed),
                                rows, count, points.mutable_data_ptr<float>());
  return points;
}

Tensor uncertain_points_cuda(at::TensorList mask_logits, const Tensor& images,
                             const Tensor& queries, const Tensor& seed, int64_t num_points,
                             int64_t num_candidates, int64_t num_uncertain) {
  constexpr auto name = "uncertain_points";
  const Tensor& first = mask_logits[0];
  const c10::cuda::CUDAGuard guard(first.device());
  TORCH_CHECK_VALUE(seed.is_cpu() || seed.device() == first.device(), name, ": seed is on ",
                    seed.device(), ", mask_logits on ", first.device());
  const PredictionTensors tensors(name, mask_logits, images, queries);
  Tensor points =
      at::empty({images.size(0), images.size(1), num_points, 2}, first.options().dtype(at::kFloat));
  if (points.numel() == 0) return points;
  const Drawing drawing = {narrow(name, "num_points", num_points),
                           narrow(name, "num_candidates", num_candidates),
                           narrow(name, "num_uncertain", num_uncertain)};
  const int blocks = std::min(
      tensors.rows, kBlocksEach * at::cuda::getCurrentDeviceProperties()->multiProcessorCount);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, first.scalar_type(), name, [&] {
    using real = at::opmath_type<scalar_t>;
    const int64_t bytes = static_cast<int64_t>(sizeof(Key<real>));
    const Tensor keys =
        at::empty({blocks, num_candidates * bytes}, first.options().dtype(at::kByte));
    Launch{name, kDrawingThreads}(uncertain_points_kernel<scalar_t, real>, blocks,
                                  tensors.arguments<scalar_t>(), seed_of(seed), tensors.rows,
                                  drawing, static_cast<Key<real>*>(keys.mutable_data_ptr()),
                                  points.mutable_data_ptr<float>());
  });
  return points;
}

}  // namespace ddep
