// The input of the CPU kernels of window attention: sizes, and pointers to contiguous tensors.
#pragma once

#include <cstdint>

namespace ddep {

// Rows of logits are padded to a multiple of this many bytes, whole vectors of every kernel.
constexpr int64_t kRowBytes = 32;

struct WindowSizes {
  int64_t windows, positions, heads, channels;  // W, N, M, D
  int64_t columns;                              // N, padded
  int64_t chunks, windows_per_chunk;            // of the backward pass
};

template <typename T>
struct WindowInput {
  const T* qkv;           // (T, 3, M, D)
  const T* padding;       // (3, M, D)
  const T* bias;          // (M, N, columns); -infinity in the padding
  const T* mask;          // (K, N, columns), 0 in the padding; or null
  const int64_t* tokens;  // (W, N): the token at each position, or -1
  const int64_t* kinds;   // (W)
  T scale;
};

template <typename T>
struct WindowGradients {
  T* qkv;      // (T, 3, M, D)
  T* padding;  // (chunks, M, 3, D), accumulated
  T* bias;     // (chunks, M, N, columns), accumulated
};

// The kernels of one instruction set. Ranges may run in parallel: no two pairs of a window and a
// head, and no two pairs of a chunk of windows and a head, write to the same place.
template <typename T>
struct WindowAttentionKernels {
  // output (T, M, D); pairs of a window and a head
  void (*forward)(const WindowSizes&, const WindowInput<T>&, T* output, int64_t begin, int64_t end);
  // pairs of a chunk of windows and a head
  void (*backward)(const WindowSizes&, const WindowInput<T>&, const T* grad_output,
                   const WindowGradients<T>&, int64_t begin, int64_t end);
};

}  // namespace ddep
