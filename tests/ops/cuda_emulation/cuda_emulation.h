// Enough of CUDA to run the kernels on a CPU, with g++ and no CUDA at all. Include it before the
// kernels.
//
// Blocks run one after the other, and so do the warps of a block; the lanes of a warp are fibres
// that take turns from one exchange (__syncwarp, __shfl_xor_sync) to the next. It is an error if a
// lane misses an exchange or is at another one than its warp. The result must not depend on the
// order of lanes between exchanges, so tests run them in either order.
#pragma once

// Included before the architecture is defined below, which these headers would take for real CUDA.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <vector>

#ifndef DDEP_EMULATED_ARCH
#define DDEP_EMULATED_ARCH 900
#endif
#define __CUDA_ARCH__ DDEP_EMULATED_ARCH
#define CUDART_VERSION 12010
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static  // only one block is alive

namespace cuda_emulation {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 64 << 10;

struct Fibre {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStackBytes);
  unsigned thread = 0;
  bool finished = false;
  int exchange = 0;  // the line of the exchange that it waits at
  unsigned shuffles = 0;
};

struct Warp {
  Fibre fibres[kWarp];
  Fibre* current = nullptr;
  ucontext_t scheduler;
  std::function<void()> kernel;
  uint64_t slots[2][kWarp];       // two, so that a lane can already write for the next shuffle
  const char* failure = nullptr;  // fibres cannot throw across their end
};

inline Warp& warp() {
  static Warp only;
  return only;
}

inline void rendezvous(int line) {
  Fibre& fibre = *warp().current;
  fibre.exchange = line;
  swapcontext(&fibre.context, &warp().scheduler);
}

inline void run_fibre() {
  warp().kernel();
  warp().current->finished = true;
}

}  // namespace cuda_emulation

struct Index {
  unsigned x;
};
inline Index threadIdx, blockIdx;

struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

template <typename T>
void atomicAdd(T* to, T x) {
  *to += x;
}
inline void atomicAdd(float4* to, float4 x) {
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0) {
    cuda_emulation::warp().failure = "atomicAdd of float4 at an address that 16 does not divide";
  }
  to->x += x.x, to->y += x.y, to->z += x.z, to->w += x.w;
}

inline void __syncwarp(int line = __builtin_LINE()) { cuda_emulation::rendezvous(line); }

template <typename T>
T __shfl_xor_sync(unsigned, T x, int offset, int line = __builtin_LINE()) {
  using namespace cuda_emulation;
  Fibre& fibre = *warp().current;
  uint64_t* slots = warp().slots[fibre.shuffles++ % 2];
  const int lane = fibre.thread % kWarp;
  std::memcpy(&slots[lane], &x, sizeof(T));
  rendezvous(line);
  std::memcpy(&x, &slots[lane ^ offset], sizeof(T));
  return x;
}

namespace cuda_emulation {

// Runs the lanes of a warp up to their next exchange; returns whether there is one.
inline bool run_to_exchange(Warp& warp, bool reversed) {
  for (int i = 0; i < kWarp; ++i) {
    Fibre& fibre = warp.fibres[reversed ? kWarp - 1 - i : i];
    warp.current = &fibre;
    threadIdx.x = fibre.thread;
    swapcontext(&warp.scheduler, &fibre.context);
  }
  if (warp.failure) throw std::runtime_error(warp.failure);
  for (const Fibre& fibre : warp.fibres) {
    if (fibre.finished != warp.fibres[0].finished || fibre.exchange != warp.fibres[0].exchange) {
      throw std::runtime_error("the lanes of a warp are not at the same exchange");
    }
  }
  return !warp.fibres[0].finished;
}

template <typename Kernel, typename... Arguments>
void launch(Kernel kernel, int64_t blocks, int threads, bool reversed,
            const Arguments&... arguments) {
  Warp& warp = cuda_emulation::warp();
  warp.kernel = [&] { kernel(arguments...); };
  warp.failure = nullptr;
  for (int64_t block = 0; block < blocks; ++block) {
    blockIdx.x = static_cast<unsigned>(block);
    for (int first = 0; first < threads; first += kWarp) {
      for (int lane = 0; lane < kWarp; ++lane) {
        Fibre& fibre = warp.fibres[lane];
        fibre.thread = first + lane;
        fibre.finished = false;
        fibre.exchange = 0;
        fibre.shuffles = 0;
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.data();
        fibre.context.uc_stack.ss_size = fibre.stack.size();
        fibre.context.uc_link = &warp.scheduler;
        makecontext(&fibre.context, run_fibre, 0);
      }
      while (run_to_exchange(warp, reversed)) {
      }
    }
  }
}

}  // namespace cuda_emulation
