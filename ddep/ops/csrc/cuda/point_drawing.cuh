// Drawing of points, uniformly and where a prediction is uncertain (PointRend, arXiv 1912.08193,
// section 3.1).
#pragma once

#include <cstring>
#include <type_traits>

#include "../random_streams.h"
#include "bilinear.cuh"
#include "mask_pairs.cuh"
#include "philox.cuh"

namespace ddep {

constexpr int kUniformThreads = 256;

// A thread draws two points. points (rows, num_points, 2)
__global__ void __launch_bounds__(kUniformThreads)
    uniform_points_kernel(Seed seed, int64_t rows, int num_points, float* __restrict__ points) {
  const int pairs = num_points / 2 + num_points % 2;
  const int64_t index = int64_t{blockIdx.x} * kUniformThreads + threadIdx.x;
  if (index >= rows * pairs) return;
  const int64_t row = index / pairs;
  const int j = static_cast<int>(index % pairs);
  const TwoPoints drawn =
      draw_two(seed.get(), kUniformStream, static_cast<uint32_t>(row), static_cast<uint32_t>(j));
  float* to = points + (row * num_points + 2 * j) * 2;
  to[0] = drawn.of[0].x, to[1] = drawn.of[0].y;
  if (2 * j + 1 < num_points) to[2] = drawn.of[1].x, to[3] = drawn.of[1].y;
}

constexpr int kDrawingThreads = 512;

// How many points a row draws.
struct Drawing {
  int points, candidates, uncertain;
};

template <typename real>
using Key = std::conditional_t<sizeof(real) == 4, uint32_t, uint64_t>;

// The bits of |x| order as numbers do. NaN counts as 0.
template <typename real>
__device__ __forceinline__ Key<real> key_of(real x) {
  const real magnitude = std::fabs(x);
  Key<real> bits;
  std::memcpy(&bits, &magnitude, sizeof(bits));
  return x == x ? bits : 0;
}

// The `count` smallest keys are those below `at` and the first `equal` ones that equal it.
template <typename K>
struct Threshold {
  K at;
  uint32_t equal;
};

constexpr int kDigitBits = 11, kDigits = 1 << kDigitBits;

// Finds the digits from the highest to the lowest. 0 < count <= size.
template <typename K>
__device__ __forceinline__ Threshold<K> find_threshold(const K* keys, int size, uint32_t count) {
  constexpr int kEach = kDigits / kDrawingThreads;  // digits of a thread
  __shared__ uint32_t counts[kDigits], of_warps[kDrawingThreads / kWarp];
  __shared__ uint32_t found, found_before;
  K at = 0;
  for (int shift = 8 * sizeof(K) - 1; shift > 0;) {  // without the sign
    const int bits = shift < kDigitBits ? shift : kDigitBits;
    const int above = shift;
    shift -= bits;
    for (int digit = threadIdx.x; digit < kDigits; digit += kDrawingThreads) counts[digit] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < size; i += kDrawingThreads) {
      const K key = keys[i];
      if (key >> above == at) {
        atomicAdd(&counts[static_cast<uint32_t>(key >> shift) & ((1U << bits) - 1)], 1U);
      }
    }
    __syncthreads();
    uint32_t here = 0;
    for (int k = 0; k < kEach; ++k) here += counts[threadIdx.x * kEach + k];
    uint32_t before = count_block<kDrawingThreads>(here, of_warps).before;
    if (before < count && count <= before + here) {  // in one thread
      int digit = threadIdx.x * kEach;
      for (; before + counts[digit] < count; ++digit) before += counts[digit];
      found = digit, found_before = before;
    }
    __syncthreads();
    at = at << bits | found;
    count -= found_before;
    __syncthreads();
  }
  return {at, count};
}

// Writes the points whose keys are the smallest, in their order.
template <typename K>
__device__ __forceinline__ void write_smallest(const K* keys, int size, Threshold<K> threshold,
                                               uint64_t seed, int row, float* points) {
  __shared__ uint32_t of_warps[kDrawingThreads / kWarp];
  uint32_t smaller = 0, equal = 0;  // so far
  for (int first = 0; first < size; first += kDrawingThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    const bool is_smaller = i < size && keys[i] < threshold.at;
    const bool is_equal = i < size && keys[i] == threshold.at;
    // Two sums in one: neither exceeds the number of threads.
    const Counted counted = count_block<kDrawingThreads>(
        static_cast<uint32_t>(is_smaller) | static_cast<uint32_t>(is_equal) << 16, of_warps);
    const uint32_t equal_before = equal + (counted.before >> 16);
    if (is_smaller || (is_equal && equal_before < threshold.equal)) {
      const uint32_t kept = equal_before < threshold.equal ? equal_before : threshold.equal;
      float* to = points + 2 * (smaller + (counted.before & 0xffff) + kept);
      const TwoPoints drawn = draw_two(seed, kCandidateStream, row, i / 2);
      const DrawnPoint point = i % 2 == 0 ? drawn.of[0] : drawn.of[1];
      to[0] = point.x, to[1] = point.y;
    }
    smaller += counted.total & 0xffff, equal += counted.total >> 16;
  }
}

// A block takes one row after another. keys (blocks, num_candidates), which fit into the L2 cache
// if blocks are as many as run at once. points (L, N, num_points, 2)
template <typename T, typename real>
__global__ void __launch_bounds__(kDrawingThreads)
    uncertain_points_kernel(const __grid_constant__ Predictions<T> p, Seed given_seed, int rows,
                            Drawing drawing, Key<real>* all_keys, float* all_points) {
  Key<real>* keys = all_keys + int64_t{blockIdx.x} * drawing.candidates;
  const uint64_t seed = given_seed.get();
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    float* points = all_points + int64_t{row} * drawing.points * 2;
    if (drawing.uncertain > 0) {
      const T* map = p.in_range(row) ? p.map(row) : nullptr;
      for (int j = threadIdx.x; 2 * j < drawing.candidates; j += kDrawingThreads) {
        const TwoPoints drawn = draw_two(seed, kCandidateStream, row, j);
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          const Place<real> place(drawn.of[k].x, drawn.of[k].y, p.height, p.width);
          const real logit = map == nullptr ? real(0) : place.sample(map);
          if (2 * j + k < drawing.candidates) keys[2 * j + k] = key_of(logit);
        }
      }
      __syncthreads();
      const auto threshold = find_threshold(keys, drawing.candidates, drawing.uncertain);
      write_smallest(keys, drawing.candidates, threshold, seed, row, points);
      __syncthreads();  // before the next row's keys
    }
    const int rest = drawing.points - drawing.uncertain;
    for (int j = threadIdx.x; 2 * j < rest; j += kDrawingThreads) {
      const TwoPoints drawn = draw_two(seed, kRestStream, row, j);
      float* to = points + 2 * (drawing.uncertain + 2 * j);
      to[0] = drawn.of[0].x, to[1] = drawn.of[0].y;
      if (2 * j + 1 < rest) to[2] = drawn.of[1].x, to[3] = drawn.of[1].y;
    }
  }
}

}  // namespace ddep
