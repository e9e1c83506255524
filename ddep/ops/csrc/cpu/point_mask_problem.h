// The input of the CPU kernels that draw points and compare masks there.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "../random_streams.h"

namespace ddep {

// Around a map, zeros take the place of checks: one row and column before it and two after it.
constexpr int64_t kBefore = 1, kAfter = 2;

inline int64_t bordered(int64_t size) { return kBefore + size + kAfter; }

// The predicted mask of a pair.
template <typename T>
struct MaskMap {
  const T* pixels;  // (bordered(height), bordered(width))
  int64_t height, width;
};

// The true mask of a pair.
struct TrueMask {
  const uint8_t* pixels;  // (height, width)
  int64_t height, width;
};

// A row of the generator's numbers; see ../random_streams.h.
struct RandomRow {
  uint64_t seed;
  uint32_t row;
};

// Of the width of T.
template <typename T>
using Whole = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

// Memory that calls reuse.
template <typename T>
struct DrawingBuffers {
  std::vector<float> x, y;                                      // of the candidates
  std::vector<std::make_unsigned_t<Whole<T>>> keys, some_keys;  // by which they are selected
};

constexpr int64_t kChunk = 256;  // points that are sampled together

// The points of a chunk in a bordered map.
template <typename T>
struct MapPlaces {
  Whole<T> pixel[kChunk];         // the upper left of four
  T right[kChunk], down[kChunk];  // the point's distance from it
};

// What the backward pass keeps of a chunk between sums and gradients.
template <typename T>
struct PointChunk {
  MapPlaces<T> places;
  T labels[kChunk], probabilities[kChunk];
};

template <typename T>
struct PointDrawingKernels {
  // points (count, 2)
  void (*uniform)(RandomRow random, uint32_t stream, int64_t count, float* points);
  // points (num_points, 2)
  void (*uncertain)(const MaskMap<T>& map, RandomRow random, int64_t num_points,
                    int64_t num_candidates, int64_t num_uncertain, DrawingBuffers<T>& buffers,
                    float* points);
};

template <typename T>
struct PointMaskLossesKernels {
  // points (count, 2)
  void (*forward)(const MaskMap<T>& map, const TrueMask& mask, const T* points, int64_t count,
                  T* cross_entropy, T* dice);
  // Adds to grad_map, which is bordered as the map is; what its border receives has no meaning.
  void (*backward)(const MaskMap<T>& map, const TrueMask& mask, const T* points, int64_t count,
                   T grad_cross_entropy, T grad_dice, T* grad_map);
};

template <typename T>
struct DenseMaskLossesKernels {
  void (*forward)(const MaskMap<T>& map, const TrueMask& mask, T* focal, T* dice);
  // grad_map as above.
  void (*backward)(const MaskMap<T>& map, const TrueMask& mask, T grad_focal, T grad_dice,
                   T* grad_map);
};

}  // namespace ddep
