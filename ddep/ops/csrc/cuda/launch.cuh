// Chooses the kernel for a problem, and the number of blocks.
#pragma once

#include <limits>

#include "backward.cuh"
#include "forward.cuh"

namespace ddep {

// How the channels of a head are spread over lanes: `kLanes` lanes with vectors of `kVector`
// channels; kExact: these are all channels.
template <int kVector_, int kLanes_, bool kExact_>
struct Layout {
  static constexpr int kVector = kVector_, kLanes = kLanes_;
  static constexpr bool kExact = kExact_;
};

// Calls run(Layout). Lanes load 16 bytes at once if the channels are a multiple of that. float64,
// which only gradient checks use, has one layout.
template <typename T, typename Run>
void with_layout(int channels, const Run& run) {
  if constexpr (sizeof(T) <= 4) {
    constexpr int kVector = 16 / sizeof(T);
    if (channels == 16) return run(Layout<kVector, 16 / kVector, true>());
    if (channels == 32) return run(Layout<kVector, 32 / kVector, true>());
    if (channels == 64) return run(Layout<kVector, 64 / kVector, true>());
    if (channels % kVector == 0) return run(Layout<kVector, 8, false>());
  }
  run(Layout<1, 16, false>());
}

// The number of blocks; -1 if there would be too many.
template <typename U, typename real>
int64_t blocks_of(const Problem<U, real>& p, int lanes) {
  const int64_t tiles = p.images * blocks_of_queries(p, lanes);
  return tiles > std::numeric_limits<int>::max() / p.heads ? -1 : tiles * p.heads;
}

// launch(kernel, blocks, arguments...) starts blocks of kThreads.
template <typename T, typename U, typename real, typename Launch>
void launch_forward(const Problem<U, real>& p, const T* value, T* output, const Launch& launch) {
  with_layout<T>(p.channels, [&](auto layout) {
    using L = decltype(layout);
    launch(forward_kernel<T, U, real, L::kVector, L::kLanes, L::kExact>, blocks_of(p, L::kLanes), p,
           value, output);
  });
}

// grad_reference may be null.
template <typename T, typename U, typename real, typename Launch>
void launch_backward(const Problem<U, real>& p, const T* value, const T* grad_output,
                     const BackwardOutputs<U, real>& out, real* grad_reference,
                     const Launch& launch) {
  with_layout<T>(p.channels, [&](auto layout) {
    using L = decltype(layout);
    launch(backward_kernel<T, U, real, L::kVector, L::kLanes, L::kExact>, blocks_of(p, L::kLanes),
           p, value, grad_output, out);
  });
  if (grad_reference == nullptr) return;
  const real* places = out.exact_places;
  if constexpr (std::is_same_v<U, real>) places = out.places;
  const int64_t count = p.images * p.queries * p.levels.count;
  launch(backward_reference_kernel<U, real>, (count + kThreads - 1) / kThreads, p, places,
         grad_reference);
}

}  // namespace ddep
