// Focal and dice loss of matched masks over all pixels of the true masks (MaskFormer, arXiv
// 2107.06278, section 3.3). Predictions are enlarged or reduced to that size bilinearly, pixel by
// pixel. A block takes one row.
#pragma once

#include <cmath>

#include "logistic.cuh"
#include "mask_pairs.cuh"

namespace ddep {

constexpr int kDenseThreads = 512;

// How one axis of the predictions is brought to the true masks' size (F.interpolate with
// align_corners false): borders are replicated. 2 * from * to must fit into 32 bits.
template <typename real>
struct Resizing {
  int from, to;
  real scale;

  __host__ __device__ __forceinline__ Resizing(int from, int to)
      : from(from), to(to), scale(static_cast<real>(from) / static_cast<real>(to)) {}

  // Two pixels of the prediction and the weight of the second.
  struct Source {
    int before, after;
    real fraction;

    __device__ __forceinline__ real weight(int pixel) const {
      return (pixel == before ? 1 - fraction : real(0)) + (pixel == after ? fraction : real(0));
    }
  };

  // The place is (pixel + 1/2) * from / to - 1/2. In whole numbers it keeps all digits of the
  // fraction, which rounding the place in float32 loses, and steep predictions show.
  __device__ __forceinline__ Source source(int pixel) const {
    const unsigned unit = 2U * static_cast<unsigned>(to);
    const unsigned end = (2U * static_cast<unsigned>(pixel) + 1U) * static_cast<unsigned>(from);
    const unsigned place = end > static_cast<unsigned>(to) ? end - static_cast<unsigned>(to) : 0U;
    const int before = static_cast<int>(place / unit);
    return {before, before + (before < from - 1),
            static_cast<real>(place % unit) / static_cast<real>(unit)};
  }

  // The first and the last of the pixels that a pixel of the prediction may contribute to.
  __device__ __forceinline__ int first(int pixel) const {
    if (pixel == 0) return 0;
    const int place = static_cast<int>(std::floor((pixel - real(0.5)) / scale - real(0.5))) - 1;
    return place > 0 ? place : 0;
  }
  __device__ __forceinline__ int last(int pixel) const {
    if (pixel == from - 1) return to - 1;
    const int place = static_cast<int>(std::ceil((pixel + real(1.5)) / scale - real(0.5))) + 1;
    return place < to ? place : to - 1;
  }
};

template <typename real>
struct PairResizing {
  Resizing<real> rows, columns;

  template <typename T>
  __device__ __forceinline__ real sample(const T* map, int row, int column) const {
    const auto y = rows.source(row), x = columns.source(column);
    const T* top = map + int64_t{y.before} * columns.from;
    const T* bottom = map + int64_t{y.after} * columns.from;
    const real above = (1 - x.fraction) * static_cast<real>(top[x.before]) +
                       x.fraction * static_cast<real>(top[x.after]);
    const real below = (1 - x.fraction) * static_cast<real>(bottom[x.before]) +
                       x.fraction * static_cast<real>(bottom[x.after]);
    return (1 - y.fraction) * above + y.fraction * below;
  }
};

template <typename T, typename real>
__device__ __forceinline__ void sum_dense_losses(const Pairs<T>& pairs,
                                                 const PairResizing<real>& resizing, int row,
                                                 real (&sums)[kLossSums]) {
  __shared__ real of_warps[kLossSums * kDenseThreads / kWarp];
  const T* map = pairs.predictions.map(row);
  const uint8_t* mask = pairs.mask(row);
#pragma unroll
  for (real& sum : sums) sum = 0;
  for (int i = threadIdx.x; i < pairs.height * pairs.width; i += kDenseThreads) {
    const Logistic<real> x(resizing.sample(map, i / pairs.width, i % pairs.width));
    const bool label = mask[i] != 0;
    sums[0] += label ? focal_if_one(x) : focal_if_zero(x);
    sums[1] += label ? x.sigmoid : real(0);
    sums[2] += x.sigmoid;
    sums[3] += static_cast<real>(label);
  }
  sum_block<kDenseThreads>(sums, of_warps);
}

// focal and dice (L, N)
template <typename T, typename real>
__global__ void __launch_bounds__(kDenseThreads)
    dense_mask_losses_kernel(const __grid_constant__ Pairs<T> pairs, PairResizing<real> resizing,
                             real* __restrict__ focal, real* __restrict__ dice) {
  const int row = blockIdx.x;
  if (!pairs.in_range(row)) {
    if (threadIdx.x == 0) focal[row] = dice[row] = real(NAN);
    return;
  }
  real sums[kLossSums];
  sum_dense_losses(pairs, resizing, row, sums);
  if (threadIdx.x != 0) return;
  focal[row] = sums[0] / static_cast<real>(pairs.height * pairs.width);
  dice[row] = Dice<real>(sums).loss();
}

// The derivative of the focal loss for the logit.
template <typename real>
__device__ __forceinline__ real focal_slope(const Logistic<real>& x, bool label) {
  const real wrong = label ? x.opposite : x.sigmoid, right = label ? x.sigmoid : x.opposite;
  const real loss = label ? x.if_one() : x.if_zero();
  const real slope = wrong * wrong * (2 * right * loss + wrong);
  return label ? -real(kFocalAlpha) * slope : real(1 - kFocalAlpha) * slope;
}

// A thread gathers what a pixel of the prediction receives from all pixels that it contributes to,
// so that no order of threads matters. The first row with a predicted mask handles the others also.
template <typename T, typename real>
__global__ void __launch_bounds__(kDenseThreads)
    dense_mask_losses_backward_kernel(const __grid_constant__ Pairs<T> pairs,
                                      PairResizing<real> resizing,
                                      const real* __restrict__ grad_focal,
                                      const real* __restrict__ grad_dice,
                                      const __grid_constant__ Layers<T> out) {
  const Predictions<T>& p = pairs.predictions;
  const int given = blockIdx.x;
  if (!p.in_range(given) || first_with_same_map<kDenseThreads>(p, given) != given) return;
  const T* map = p.map(given);
  T* grad_map = out.of[given / p.pairs] + p.offset(given);
  const int end = (given / p.pairs + 1) * p.pairs;
  for (int row = given; row < end; ++row) {
    if (!pairs.in_range(row) || !p.same(given, row)) continue;
    const uint8_t* mask = pairs.mask(row);
    real sums[kLossSums];
    sum_dense_losses(pairs, resizing, row, sums);
    const Dice<real> dice(sums);
    const real every = grad_dice[row] * dice.every(), covered = grad_dice[row] * dice.covered();
    const real each = grad_focal[row] / static_cast<real>(pairs.height * pairs.width);
    for (int pixel = threadIdx.x; pixel < p.height * p.width; pixel += kDenseThreads) {
      const int i = pixel / p.width, j = pixel % p.width;
      real gradient = 0;
      for (int y = resizing.rows.first(i); y <= resizing.rows.last(i); ++y) {
        const real of_row = resizing.rows.source(y).weight(i);
        if (of_row == 0) continue;
        for (int x = resizing.columns.first(j); x <= resizing.columns.last(j); ++x) {
          const real weight = of_row * resizing.columns.source(x).weight(j);
          if (weight == 0) continue;
          const Logistic<real> at(resizing.sample(map, y, x));
          const bool label = mask[int64_t{y} * pairs.width + x] != 0;
          const real slope = at.sigmoid * at.opposite;  // of the sigmoid
          gradient += weight * (each * focal_slope(at, label) +
                                (every - (label ? covered : real(0))) * slope);
        }
      }
      grad_map[pixel] = static_cast<T>(static_cast<real>(grad_map[pixel]) + gradient);
    }
  }
}

}  // namespace ddep
