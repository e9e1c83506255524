// The input of the CUDA kernels: sizes, levels, and contiguous arrays.
#pragma once

#include <cstdint>

namespace ddep {

// A level's pixels, row by row, start at token `start`.
struct Level {
  int height, width, start;
};

// A level that does not lie within the tokens is treated as empty, so that nothing is read beyond
// them.
__host__ __device__ inline Level make_level(int64_t height, int64_t width, int64_t start,
                                            int64_t tokens) {
  const bool fits = height > 0 && height <= tokens && width > 0 && width <= tokens && start >= 0 &&
                    start <= tokens && start + height * width <= tokens;
  if (!fits) return {0, 0, 0};
  return {static_cast<int>(height), static_cast<int>(width), static_cast<int>(start)};
}

constexpr int kMaxHostLevels = 16;

// Levels known on the host are passed with the launch. Others are read on the device, so that the
// host does not wait for them.
struct Levels {
  int count;
  const int64_t* shapes;  // (L, 2) on the device, or null: then `known`
  const int64_t* starts;  // (L) on the device
  Level known[kMaxHostLevels];
};

template <typename T, int n>
struct alignas(sizeof(T) * n) Vector {
  T of[n];
};

template <typename T>
using Pair = Vector<T, 2>;

// `real` is the type of coordinates and sums: float, or double if value is double. `U` is the type
// of places and weights: value's, or `real` (as under autocast).
template <typename U, typename real>
struct Problem {
  int64_t images;
  int tokens, queries, heads, channels, points;
  int samples;  // of a head of a query: levels * points
  Levels levels;
  const real* reference;  // (N, Q, L, 2) if `places` are offsets in pixels from it and `weights`
                          // are logits; null if they are locations in [0, 1] and attention
  const U* places;        // (N, Q, M, L, P, 2)
  const U* weights;       // (N, Q, M, L, P)

  __device__ __forceinline__ Level level_at(int level) const {
    if (levels.shapes == nullptr) return levels.known[level];
    return make_level(levels.shapes[2 * level], levels.shapes[2 * level + 1], levels.starts[level],
                      tokens);
  }
};

}  // namespace ddep
