// The input of the CPU kernels: sizes, and pointers to contiguous tensors.
#pragma once

#include <cstdint>

namespace ddep {

struct Sizes {
  int64_t images, tokens, heads, channels, queries, levels, points;
  const int64_t* shapes;  // (L, 2): height, width
  const int64_t* starts;  // (L)
};

// Where to sample and with which weights. `places` are offsets in pixels from `reference`, or
// locations in [0, 1] if it is null. `weights` are attention or, if `logits`, what a softmax over
// levels and points turns into attention.
template <typename T>
struct Sampling {
  const T* reference;  // (N, Q, L, 2) or null
  const T* places;     // (N, Q, M, L, P, 2)
  const T* weights;    // (N, Q, M, L, P)
  bool logits;
};

// The kernels of one instruction set. Rows are (image, query) pairs; columns are
// (image, head, block of channels) triples. Ranges of either may run in parallel: no two rows, and
// no two columns, write to the same place.
template <typename T>
struct MsDeformAttnKernels {
  // output (N, Q, M, D)
  void (*forward)(const Sizes&, const Sampling<T>&, const T* value, T* output, int64_t row_begin,
                  int64_t row_end);
  // A gradient has the shape of its variable; grad_reference is accumulated. `attention`,
  // (N, Q, M, L, P), receives the weights after the softmax, unless it is null.
  void (*backward_sampling)(const Sizes&, const Sampling<T>&, const T* value, const T* grad_output,
                            T* grad_reference, T* grad_places, T* grad_weights, T* attention,
                            int64_t row_begin, int64_t row_end);
  // grad_value (N, S, M, D)
  void (*backward_value)(const Sizes&, const Sampling<T>&, const T* grad_output, T* grad_value,
                         int64_t column_begin, int64_t column_end);
};

// Channels that are processed at once.
constexpr int64_t kBlock = 32;

inline int64_t channel_blocks(const Sizes& sizes) { return (sizes.channels + kBlock - 1) / kBlock; }

}  // namespace ddep
