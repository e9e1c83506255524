// Cross entropy and dice loss of matched masks at points (Mask2Former, arXiv 2112.01527, section
// 3.3). A block takes one row.
#pragma once

#include "bilinear.cuh"
#include "logistic.cuh"
#include "mask_pairs.cuh"

namespace ddep {

constexpr int kLossThreads = 256;

// A prediction and its label at a point.
template <typename T, typename real>
struct PointOfPair {
  Place<real> place;
  real logit, label;
  Logistic<real> prediction;

  // point: x and y
  __device__ __forceinline__ PointOfPair(const Pairs<T>& pairs, int row, const real* point)
      : place(point[0], point[1], pairs.predictions.height, pairs.predictions.width),
        logit(place.sample(pairs.predictions.map(row))),
        label(Place<real>(point[0], point[1], pairs.height, pairs.width).sample(pairs.mask(row))),
        prediction(logit) {}
};

// points (P, 2)
template <typename T, typename real>
__device__ __forceinline__ void sum_point_losses(const Pairs<T>& pairs, int row, const real* points,
                                                 int num_points, real (&sums)[kLossSums]) {
  __shared__ real of_warps[kLossSums * kLossThreads / kWarp];
#pragma unroll
  for (real& sum : sums) sum = 0;
  for (int i = threadIdx.x; i < num_points; i += kLossThreads) {
    const PointOfPair<T, real> point(pairs, row, points + 2 * i);
    const Logistic<real>& x = point.prediction;
    sums[0] += (x.positive - point.logit * point.label) + x.tail;
    sums[1] += x.sigmoid * point.label;
    sums[2] += x.sigmoid;
    sums[3] += point.label;
  }
  sum_block<kLossThreads>(sums, of_warps);
}

// points (L, N, P, 2); cross_entropy and dice (L, N)
template <typename T, typename real>
__global__ void __launch_bounds__(kLossThreads)
    point_mask_losses_kernel(const __grid_constant__ Pairs<T> pairs,
                             const real* __restrict__ points, int num_points,
                             real* __restrict__ cross_entropy, real* __restrict__ dice) {
  const int row = blockIdx.x;
  if (!pairs.in_range(row)) {
    if (threadIdx.x == 0) cross_entropy[row] = dice[row] = real(NAN);
    return;
  }
  real sums[kLossSums];
  sum_point_losses(pairs, row, points + int64_t{row} * num_points * 2, num_points, sums);
  if (threadIdx.x != 0) return;
  cross_entropy[row] = sums[0] / static_cast<real>(num_points);
  dice[row] = Dice<real>(sums).loss();
}

// Where gradients are added up: in those of the mask logits, or for types that are too coarse for
// that in a map for each row; rows with the same predicted mask share the first one's.
template <typename real>
struct GradientSums {
  Layers<real> layers;
  real* rows;  // (L, N, h, w) or null: then `layers`
};

template <typename T, typename real>
__global__ void __launch_bounds__(kLossThreads)
    point_mask_losses_backward_kernel(const __grid_constant__ Pairs<T> pairs,
                                      const real* __restrict__ points, int num_points,
                                      const real* __restrict__ grad_cross_entropy,
                                      const real* __restrict__ grad_dice,
                                      const __grid_constant__ GradientSums<real> out) {
  const int row = blockIdx.x;
  if (!pairs.in_range(row)) return;
  const Predictions<T>& p = pairs.predictions;
  real* map;
  if (out.rows != nullptr) {
    const int first = first_with_same_map<kLossThreads>(p, row);
    map = out.rows + int64_t{first} * p.height * p.width;
  } else {
    map = out.layers.of[row / p.pairs] + p.offset(row);
  }
  points += int64_t{row} * num_points * 2;
  real sums[kLossSums];
  sum_point_losses(pairs, row, points, num_points, sums);
  const Dice<real> dice(sums);
  const real every = grad_dice[row] * dice.every(), covered = grad_dice[row] * dice.covered();
  const real each = grad_cross_entropy[row] / static_cast<real>(num_points);
  for (int i = threadIdx.x; i < num_points; i += kLossThreads) {
    const PointOfPair<T, real> point(pairs, row, points + 2 * i);
    const Logistic<real>& x = point.prediction;
    const real slope = x.sigmoid * x.opposite;  // of the sigmoid
    point.place.add(each * (x.sigmoid - point.label) + (every - covered * point.label) * slope,
                    map);
  }
}

// Writes the maps of GradientSums::rows to the gradients of the mask logits.
template <typename T, typename real>
__global__ void __launch_bounds__(kLossThreads)
    write_gradients_kernel(const __grid_constant__ Predictions<T> p, const real* __restrict__ rows,
                           const __grid_constant__ Layers<T> out) {
  const int row = blockIdx.x;
  if (!p.in_range(row) || first_with_same_map<kLossThreads>(p, row) != row) return;
  const real* from = rows + int64_t{row} * p.height * p.width;
  T* to = out.of[row / p.pairs] + p.offset(row);
  for (int i = threadIdx.x; i < p.height * p.width; i += kLossThreads) {
    to[i] = static_cast<T>(from[i]);
  }
}

}  // namespace ddep
