// Lanes of a warp that work together: `kLanes` neighbours, a power of two. Every warp is whole and
// takes the same steps, so that all lanes take part in each exchange.
#pragma once

namespace ddep {

constexpr unsigned kAllLanes = 0xffffffffu;

template <int kLanes, typename real>
__device__ __forceinline__ real sum_lanes(real x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

template <int kLanes, typename real>
__device__ __forceinline__ real max_lanes(real x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    const real other = __shfl_xor_sync(kAllLanes, x, offset);
    x = other > x ? other : x;
  }
  return x;
}

// Sums each of four numbers over the lanes and puts the sums into `sums`. The lanes first share out
// the numbers: 8 lanes need 4 exchanges, where 4 separate sums need 12.
template <int kLanes, typename real>
__device__ __forceinline__ void sum_four(const real (&x)[4], int lane, real* sums) {
  static_assert(kLanes >= 2 && kLanes <= 32);
  const bool odd = lane & 1;
  real first = odd ? x[2] : x[0], second = odd ? x[3] : x[1];
  first += __shfl_xor_sync(kAllLanes, odd ? x[0] : x[2], 1);
  second += __shfl_xor_sync(kAllLanes, odd ? x[1] : x[3], 1);
  if constexpr (kLanes == 2) {
    sums[2 * odd] = first, sums[2 * odd + 1] = second;
  } else {
    const bool upper = lane & 2;
    real sum = upper ? second : first;
    sum += __shfl_xor_sync(kAllLanes, upper ? first : second, 2);
#pragma unroll
    for (int offset = 4; offset < kLanes; offset *= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, offset);
    }
    if (lane < 4) sums[2 * odd + upper] = sum;
  }
}

}  // namespace ddep
