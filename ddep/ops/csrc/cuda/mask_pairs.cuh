// Matched pairs of masks as the kernels see them; see ../mask_pairs.h.
#pragma once

#include <cstdint>

#include "blocks.cuh"

namespace ddep {

constexpr int kMaxLayers = 64;

// The mask logits of each layer, (B, Q, h, w), passed with a launch.
template <typename T>
struct Layers {
  T* of[kMaxLayers];
};

// The predicted masks of N pairs in each layer. Row l N + n is pair n of layer l.
template <typename T>
struct Predictions {
  Layers<const T> layers;
  int64_t num_images, num_queries;
  int height, width, pairs;
  const int64_t *images, *queries;  // (L, N)

  __device__ __forceinline__ bool in_range(int row) const {
    return images[row] >= 0 && images[row] < num_images && queries[row] >= 0 &&
           queries[row] < num_queries;
  }

  // Where the row's mask begins in its layer.
  __device__ __forceinline__ int64_t offset(int row) const {
    return (images[row] * num_queries + queries[row]) * height * width;
  }

  __device__ __forceinline__ const T* map(int row) const {
    return layers.of[row / pairs] + offset(row);
  }

  __device__ __forceinline__ bool same(int row, int other) const {
    return images[row] == images[other] && queries[row] == queries[other];
  }
};

// The host does not compare indices with their bounds, which would wait for the device. A row with
// one out of range is not processed: its losses are NaN, and it has no gradient.
template <typename T>
struct Pairs {
  Predictions<T> predictions;
  const uint8_t* masks;    // (T, H, W)
  const int64_t* targets;  // (L, N)
  int64_t num_targets;
  int height, width;  // of the true masks

  __device__ __forceinline__ bool in_range(int row) const {
    return predictions.in_range(row) && targets[row] >= 0 && targets[row] < num_targets;
  }

  __device__ __forceinline__ const uint8_t* mask(int row) const {
    return masks + targets[row] * height * width;
  }
};

// The first row of a row's layer that has the same predicted mask. All threads of a block call it,
// once in a kernel.
template <int kThreads, typename T>
__device__ __forceinline__ int first_with_same_map(const Predictions<T>& p, int row) {
  __shared__ int first;
  if (threadIdx.x == 0) first = row;
  __syncthreads();
  for (int other = row / p.pairs * p.pairs + threadIdx.x; other < row; other += kThreads) {
    if (p.same(row, other)) atomicMin(&first, other);
  }
  __syncthreads();
  return first;
}

// What the losses of a pair are made of, added up over points: loss, intersection, probabilities
// and labels.
constexpr int kLossSums = 4;

// The dice loss is 1 - above / below. Its derivative for a probability is every - covered * label.
template <typename real>
struct Dice {
  real above, below;

  __device__ __forceinline__ explicit Dice(const real (&sums)[kLossSums])
      : above(2 * sums[1] + 1), below(sums[2] + sums[3] + 1) {}

  __device__ __forceinline__ real loss() const { return 1 - above / below; }
  __device__ __forceinline__ real every() const { return above / below / below; }
  __device__ __forceinline__ real covered() const { return 2 / below; }
};

}  // namespace ddep
