// Where to sample and with which weights (Deformable DETR, arXiv 2010.04159, section 4.1).
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#include "lanes.cuh"
#include "problem.cuh"

namespace ddep {

constexpr int kThreads = 128;  // of a block

// The work of `kLanes` lanes: one head of one query. A block takes consecutive queries of one head,
// because neighbours sample the same pixels, which then come from the L1 cache. Consecutive blocks
// take the heads of the same queries.
struct Unit {
  int64_t image;
  int query, head;
  bool valid;  // otherwise this repeats the last query, and its result is discarded

  // Index of the head among (N, Q, M).
  template <typename U, typename real>
  __device__ __forceinline__ int64_t index(const Problem<U, real>& p) const {
    return (image * p.queries + query) * p.heads + head;
  }
};

template <typename U, typename real>
__host__ __device__ inline int blocks_of_queries(const Problem<U, real>& p, int lanes) {
  const int per_block = kThreads / lanes;
  return p.queries / per_block + (p.queries % per_block != 0);
}

template <int kLanes, typename U, typename real>
__device__ __forceinline__ Unit find_unit(const Problem<U, real>& p) {
  const unsigned tile = blockIdx.x / p.heads, tiles = blocks_of_queries(p, kLanes);
  const unsigned query = tile % tiles * (kThreads / kLanes) + threadIdx.x / kLanes;
  const bool valid = query < static_cast<unsigned>(p.queries);
  return {tile / tiles, static_cast<int>(valid ? query : p.queries - 1),
          static_cast<int>(blockIdx.x % p.heads), valid};
}

// The softmax over a head's samples, or the identity if the weights are already attention.
template <typename real>
struct Softmax {
  bool used;
  real largest, inverse_sum;

  __device__ __forceinline__ real operator()(real weight) const {
    return used ? std::exp(weight - largest) * inverse_sum : weight;
  }
};

// first: index of the head's first sample
template <int kLanes, typename U, typename real>
__device__ __forceinline__ Softmax<real> find_softmax(const Problem<U, real>& p, int64_t first,
                                                      int lane) {
  if (p.reference == nullptr) return {false, 0, 0};
  const U* logits = p.weights + first;
  real largest = -INFINITY, sum = 0;
#pragma unroll 1  // there are few
  for (int i = lane; i < p.samples; i += kLanes) {
    const real logit = static_cast<real>(logits[i]);
    largest = logit > largest ? logit : largest;
  }
  largest = max_lanes<kLanes>(largest);
#pragma unroll 1
  for (int i = lane; i < p.samples; i += kLanes) {
    sum += std::exp(static_cast<real>(logits[i]) - largest);
  }
  return {true, largest, 1 / sum_lanes<kLanes>(sum)};
}

// The pixel at or before a place along one axis, and the place's distance from it.
template <typename real>
struct Position {
  int pixel;
  real fraction;
  bool near;  // a pixel of the level may contribute
};

// The place is scale * size + offset - 0.5, in pixels: values sit at pixel centres, and 0 is half a
// pixel before the first (align_corners false). Subtracting the pixel within the fused operation
// keeps digits that rounding the place itself would lose, and decides on which side of a pixel it
// lies.
template <typename real>
__device__ __forceinline__ Position<real> find_position(real scale, int size, real offset) {
  const real length = static_cast<real>(size);
  const real place = std::fma(scale, length, real(-0.5)) + offset;
  // Rounding may have moved the place onto the border of this range. NaN is not in it.
  const bool near = place >= real(-1) && place <= length;
  const real before = std::floor(near ? place : real(0));
  const real fraction = std::fma(scale, length, -(before + real(0.5))) + offset;
  const real again = std::fma(scale, length, -(before - real(0.5))) + offset;
  const bool rounded_up = fraction < 0;
  return {static_cast<int>(before) - rounded_up, near ? (rounded_up ? again : fraction) : real(0),
          near};
}

// A value for each of the four pixels around a place: top left, top right, bottom left and right.
template <typename T>
struct alignas(sizeof(T) >= 8 ? 16 : 4 * sizeof(T)) Corners {
  T of[4];
};

// What is known of a sample before it is located. Read in advance, because of memory latency.
template <typename U, typename real>
struct Given {
  Pair<U> place;
  Pair<real> reference;
  U weight;
  int level;  // -1: no sample
};

template <typename U, typename real>
__device__ __forceinline__ Given<U, real> read_sample(const Problem<U, real>& p, const Unit& unit,
                                                      int64_t first, int i) {
  if (i >= p.samples || !unit.valid) return {{}, {}, U(0), -1};
  const int level = static_cast<unsigned>(i) / static_cast<unsigned>(p.points);
  Pair<real> reference = {};
  if (p.reference != nullptr) {
    const int64_t row = unit.image * p.queries + unit.query;
    reference = reinterpret_cast<const Pair<real>*>(p.reference)[row * p.levels.count + level];
  }
  const int64_t at = first + i;
  return {reinterpret_cast<const Pair<U>*>(p.places)[at], reference, p.weights[at], level};
}

constexpr uint32_t kOutside = 0xffffffffu;

template <typename real>
struct Sample {
  Corners<uint32_t> offsets;  // of pixels from the image's first, in vectors, or kOutside
  Corners<real> weights;      // attention times bilinear weight; outside 0, or NaN if attention is
  real x, y;                  // fractions, from the left and top pixels
  real attention;
  real x_unit, y_unit;  // unit of the places, in pixels
};

// stride: from pixel to pixel, in vectors
template <typename U, typename real>
__device__ __forceinline__ Sample<real> locate(const Problem<U, real>& p,
                                               const Given<U, real>& given,
                                               const Softmax<real>& softmax, uint32_t stride) {
  const bool fused = p.reference != nullptr;
  const Level level = p.level_at(given.level < 0 ? 0 : given.level);
  const real place_x = static_cast<real>(given.place.of[0]);
  const real place_y = static_cast<real>(given.place.of[1]);
  const Position<real> x = find_position(fused ? given.reference.of[0] : place_x, level.width,
                                         fused ? place_x : real(0));
  const Position<real> y = find_position(fused ? given.reference.of[1] : place_y, level.height,
                                         fused ? place_y : real(0));
  const bool near = given.level >= 0 && x.near && y.near;
  Sample<real> sample;
  sample.x = x.fraction, sample.y = y.fraction;
  sample.attention = softmax(static_cast<real>(given.weight));
  sample.x_unit = fused ? real(1) : static_cast<real>(level.width);
  sample.y_unit = fused ? real(1) : static_cast<real>(level.height);
  const int first = level.start + y.pixel * level.width + x.pixel;
  const real nothing = sample.attention * real(0);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int right = k % 2, bottom = k / 2;
    const int column = x.pixel + right, row = y.pixel + bottom;
    const bool inside =
        near && column >= 0 && column < level.width && row >= 0 && row < level.height;
    const real weight = sample.attention * (bottom ? y.fraction : 1 - y.fraction) *
                        (right ? x.fraction : 1 - x.fraction);
    const uint32_t token = first + bottom * level.width + right;
    sample.offsets.of[k] = inside ? token * stride : kOutside;
    sample.weights.of[k] = inside ? weight : nothing;
  }
  return sample;
}

// Channels of value or grad_output, converted.
template <typename T, int n, typename real>
__device__ __forceinline__ void load_channels(const T* from, real (&to)[n]) {
  const auto channels = *reinterpret_cast<const Vector<T, n>*>(from);
#pragma unroll
  for (int c = 0; c < n; ++c) to[c] = static_cast<real>(channels.of[c]);
}

// The channels of four pixels as they lie in memory; zeros outside. All four loads start before the
// first result is needed. Outside, the first pixel is loaded and dropped, since a branch around a
// load would make them wait for each other.
template <typename T, int n>
struct Pixels {
  using Word = std::conditional_t<sizeof(T) * n % 4 == 0, uint32_t, uint16_t>;
  static constexpr int kWords = sizeof(T) * n / sizeof(Word);
  Vector<Word, kWords> words[4];

  __device__ __forceinline__ Pixels(const T* first, const Corners<uint32_t>& offsets) {
    const auto* vectors = reinterpret_cast<const Vector<Word, kWords>*>(first);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      words[k] = vectors[offsets.of[k] == kOutside ? 0 : offsets.of[k]];
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int i = 0; i < kWords; ++i) {
        words[k].of[i] = offsets.of[k] == kOutside ? Word(0) : words[k].of[i];
      }
    }
  }

  template <typename real>
  __device__ __forceinline__ void get(int k, real (&to)[n]) const {
    Vector<T, n> channels;
    std::memcpy(&channels, &words[k], sizeof(channels));
#pragma unroll
    for (int c = 0; c < n; ++c) to[c] = static_cast<real>(channels.of[c]);
  }
};

}  // namespace ddep
