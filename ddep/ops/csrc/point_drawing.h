// Drawing of points from a counter-based generator: declarations that the back ends share.
//
// Philox4x32-10 (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3"): the key is
// the seed's lower and upper 32 bits. The counter (j, row, stream, 0) gives four words: x and y of
// the points 2 j and 2 j + 1 of a row. A word's upper 24 bits times 2^-24 are a number in [0, 1).
// So seed, stream, row and point decide a number; threads, devices and the batch's size do not.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace ddep {

constexpr uint32_t kUniformStream = 0;    // uniform_points
constexpr uint32_t kCandidateStream = 1;  // uncertain_points: its candidates
constexpr uint32_t kRestStream = 2;       // uncertain_points: its uniform points

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
