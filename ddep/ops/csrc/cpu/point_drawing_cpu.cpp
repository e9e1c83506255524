// Drawing of points on the CPU: threads and dtypes.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "../mask_pairs.h"
#include "../point_drawing.h"
#include "kernels.h"
#include "mask_maps.h"

namespace ddep {

namespace {

RandomRow random_row(uint64_t seed, int64_t row) { return {seed, static_cast<uint32_t>(row)}; }

}  // namespace

at::Tensor uniform_points_cpu(const at::Tensor& seed, int64_t rows, int64_t num_points) {
  const auto value = static_cast<uint64_t>(seed.item<int64_t>());
  at::Tensor points = at::empty({rows, num_points, 2}, at::kFloat);
  float* out = points.mutable_data_ptr<float>();
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      kernels<float>().point_drawing.uniform(random_row(value, row), kUniformStream, num_points,
                                             out + row * num_points * 2);
    }
  });
  return points;
}

at::Tensor uncertain_points_cpu(at::TensorList mask_logits, const at::Tensor& images,
                                const at::Tensor& queries, const at::Tensor& seed,
                                int64_t num_points, int64_t num_candidates, int64_t num_uncertain) {
  const auto value = static_cast<uint64_t>(seed.item<int64_t>());
  const int64_t layers = images.size(0), pairs = images.size(1);
  at::Tensor points = at::empty({layers, pairs, num_points, 2}, at::kFloat);
  float* out = points.mutable_data_ptr<float>();
  const at::Tensor of_images = images.contiguous(), of_queries = queries.contiguous();
  const int64_t* image = of_images.const_data_ptr<int64_t>();
  const int64_t* query = of_queries.const_data_ptr<int64_t>();
  AT_DISPATCH_FLOATING_TYPES(compute_type(mask_logits[0]), "uncertain_points", [&] {
    at::parallel_for(0, layers * pairs, 1, [&](int64_t begin, int64_t end) {
      std::vector<scalar_t> map;
      DrawingBuffers<scalar_t> buffers;
      for (int64_t row = begin; row < end; ++row) {
        kernels<scalar_t>().point_drawing.uncertain(
            copy_map(mask_logits[row / pairs], image[row], query[row], map), random_row(value, row),
            num_points, num_candidates, num_uncertain, buffers, out + row * num_points * 2);
      }
    });
  });
  return points;
}

}  // namespace ddep
