// Sums over the threads of a block, in an order that does not change. All threads take part.
#pragma once

#include <cstdint>

#include "lanes.cuh"

namespace ddep {

constexpr int kWarp = 32;

// Replaces each of n numbers by its sum over the block. `shared` has n kThreads / kWarp numbers,
// which may be used again at once.
template <int kThreads, int n, typename real>
__device__ __forceinline__ void sum_block(real (&x)[n], real* shared) {
  constexpr int kWarps = kThreads / kWarp;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int i = 0; i < n; ++i) {
    x[i] = sum_lanes<kWarp>(x[i]);
    if (lane == 0) shared[i * kWarps + warp] = x[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < n; ++i) {
    x[i] = 0;
    for (int k = 0; k < kWarps; ++k) x[i] += shared[i * kWarps + k];
  }
  __syncthreads();
}

struct Counted {
  uint32_t before, total;  // over the threads before this one, and over all
};

// `shared` has kThreads / kWarp numbers, which may be used again at once.
template <int kThreads>
__device__ __forceinline__ Counted count_block(uint32_t x, uint32_t* shared) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  uint32_t through = x;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const uint32_t other = __shfl_up_sync(kAllLanes, through, offset);
    if (lane >= offset) through += other;
  }
  if (lane == kWarp - 1) shared[warp] = through;
  __syncthreads();
  Counted counted = {through - x, 0};
  for (int k = 0; k < kThreads / kWarp; ++k) {
    if (k < warp) counted.before += shared[k];
    counted.total += shared[k];
  }
  __syncthreads();
  return counted;
}

}  // namespace ddep
