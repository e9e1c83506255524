// Drawing of points from a counter-based generator: declarations that the back ends share.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "random_streams.h"

namespace ddep {

// The seed is a scalar of int64, on the CPU or where the points shall be; reading one on the CPU
// waits for no GPU. The back ends' functions take arguments that have been checked.

// (rows, num_points, 2) float32 on the seed's device.
at::Tensor uniform_points_cpu(const at::Tensor& seed, int64_t rows, int64_t num_points);
at::Tensor uniform_points_cuda(const at::Tensor& seed, int64_t rows, int64_t num_points);

// (L, N, num_points, 2) float32. Row l N + n draws num_candidates points, of which it keeps, in
// their order, the num_uncertain with the smallest absolute logit (NaN counts as 0; the earlier of
// equal ones), then num_points - num_uncertain uniform points.
at::Tensor uncertain_points_cpu(at::TensorList mask_logits, const at::Tensor& images,
                                const at::Tensor& queries, const at::Tensor& seed,
                                int64_t num_points, int64_t num_candidates, int64_t num_uncertain);
at::Tensor uncertain_points_cuda(at::TensorList mask_logits, const at::Tensor& images,
                                 const at::Tensor& queries, const at::Tensor& seed,
                                 int64_t num_points, int64_t num_candidates, int64_t num_uncertain);

}  // namespace ddep
