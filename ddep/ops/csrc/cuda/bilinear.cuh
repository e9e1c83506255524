// Bilinear sampling of a map of pixels with zeros outside (grid_sample with align_corners false).
#pragma once

#include <cmath>
#include <cstdint>

namespace ddep {

// The pixel at or before a place along one axis, from -1, and the place's distance from it.
template <typename real>
struct Axis {
  int pixel;
  real fraction;
};

// `at` is a fraction of `size`. A place where all is zero, or NaN, becomes one outside. Operations
// and their order are those of the CPU kernels with fused multiply-add, so that a sample, and with
// it the choice of points, is the same on both to the bit.
template <typename real>
__device__ __forceinline__ Axis<real> find_on_axis(real at, int size) {
  const real length = static_cast<real>(size);
  const real place = std::fma(at, length, real(0.5));  // 0 is one pixel before the first
  const bool near = place >= 0 && place <= length + 1;
  const int pixel = near ? static_cast<int>(place) : 0;
  const real fraction = std::fma(at, length, real(0.5) - static_cast<real>(pixel));
  return {pixel - 1, near ? fraction : real(0)};
}

template <typename real>
__device__ __forceinline__ real interpolate(real from, real to, real fraction) {
  return std::fma(fraction, to - from, from);
}

// The four pixels around a point of a map.
template <typename real>
struct Place {
  Axis<real> row, column;
  int height, width;

  __device__ __forceinline__ Place(real x, real y, int height, int width)
      : row(find_on_axis(y, height)),
        column(find_on_axis(x, width)),
        height(height),
        width(width) {}

  // From top left (0) to bottom right (3).
  __device__ __forceinline__ bool inside(int k) const {
    const int y = row.pixel + k / 2, x = column.pixel + k % 2;
    return y >= 0 && y < height && x >= 0 && x < width;
  }

  __device__ __forceinline__ int pixel(int k) const {
    return (row.pixel + k / 2) * width + column.pixel + k % 2;
  }

  template <typename T>
  __device__ __forceinline__ real sample(const T* map) const {
    real corners[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) corners[k] = inside(k) ? static_cast<real>(map[pixel(k)]) : real(0);
    return interpolate(interpolate(corners[0], corners[1], column.fraction),
                       interpolate(corners[2], corners[3], column.fraction), row.fraction);
  }

  // The reverse: adds the gradient of a sample to that of the map.
  __device__ __forceinline__ void add(real gradient, real* map) const {
    const real right = gradient * column.fraction, left = gradient - right;
    const real parts[4] = {left - left * row.fraction, right - right * row.fraction,
                           left * row.fraction, right * row.fraction};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (inside(k)) atomicAdd(map + pixel(k), parts[k]);
    }
  }
};

}  // namespace ddep
