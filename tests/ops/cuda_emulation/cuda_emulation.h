// Enough of CUDA to run the kernels on a CPU, with g++ and no CUDA at all. Include it before the
// kernels.
//
// Blocks run one after the other. The threads of a block are fibres: its warps take turns from one
// barrier (__syncthreads) to the next, and the lanes of a warp from one exchange (__syncwarp,
// __shfl_xor_sync, __shfl_up_sync) or barrier to the next. It is an error if a thread misses one
// or is at another one than its warp or block. The result must not depend on the order of lanes
// and warps in between, so tests run them in either order.
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
#include <string>
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

constexpr int kLanes = 32;
constexpr size_t kStackBytes = 64 << 10;

struct Fibre {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStackBytes);
  unsigned thread = 0;
  bool finished = false;
  bool at_barrier = false;  // or at an exchange
  int line = 0;             // where it waits
  unsigned shuffles = 0;

  bool waits_like(const Fibre& other) const {
    return finished == other.finished && at_barrier == other.at_barrier && line == other.line;
  }
};

struct Warp {
  Fibre fibres[kLanes];
  uint64_t slots[2][kLanes];  // two, so that a lane can already write for the next shuffle
};

struct Block {
  std::vector<Warp> warps;
  Warp* warp = nullptr;  // that runs, and the fibre of it
  Fibre* fibre = nullptr;
  ucontext_t scheduler;
  std::function<void()> kernel;
  const char* failure = nullptr;  // fibres cannot throw across their end
};

inline Block& block() {
  static Block only;
  return only;
}

inline void rendezvous(bool at_barrier, int line) {
  Fibre& fibre = *block().fibre;
  fibre.at_barrier = at_barrier;
  fibre.line = line;
  swapcontext(&fibre.context, &block().scheduler);
}

inline void run_fibre() {
  block().kernel();
  block().fibre->finished = true;
}

// Returns the x of the lane that source(lane) names.
template <typename T, typename Source>
T shuffle(T x, int line, const Source& source) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  Fibre& fibre = *block().fibre;
  uint64_t* slots = block().warp->slots[fibre.shuffles++ % 2];
  const int lane = fibre.thread % kLanes;
  std::memcpy(&slots[lane], &x, sizeof(T));
  rendezvous(false, line);
  std::memcpy(&x, &slots[source(lane)], sizeof(T));
  return x;
}

}  // namespace cuda_emulation

struct Index {
  unsigned x;
};
inline Index threadIdx, blockIdx, gridDim;

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
    cuda_emulation::block().failure = "atomicAdd of float4 at an address that 16 does not divide";
  }
  to->x += x.x, to->y += x.y, to->z += x.z, to->w += x.w;
}
inline void atomicMin(int* to, int x) { *to = x < *to ? x : *to; }

inline int min(int x, int y) { return x < y ? x : y; }

inline void __syncthreads(int line = __builtin_LINE()) { cuda_emulation::rendezvous(true, line); }
inline void __syncwarp(int line = __builtin_LINE()) { cuda_emulation::rendezvous(false, line); }

template <typename T>
T __shfl_xor_sync(unsigned, T x, int offset, int line = __builtin_LINE()) {
  return cuda_emulation::shuffle(x, line, [&](int lane) { return lane ^ offset; });
}

template <typename T>
T __shfl_up_sync(unsigned, T x, int offset, int line = __builtin_LINE()) {
  return cuda_emulation::shuffle(x, line,
                                 [&](int lane) { return lane < offset ? lane : lane - offset; });
}

namespace cuda_emulation {

// Runs the lanes of a warp up to their next exchange or barrier.
inline void run_warp(Block& block, Warp& warp, bool reversed) {
  block.warp = &warp;
  for (int i = 0; i < kLanes; ++i) {
    Fibre& fibre = warp.fibres[reversed ? kLanes - 1 - i : i];
    block.fibre = &fibre;
    threadIdx.x = fibre.thread;
    swapcontext(&block.scheduler, &fibre.context);
  }
  if (block.failure) throw std::runtime_error(block.failure);
  for (const Fibre& fibre : warp.fibres) {
    if (!fibre.waits_like(warp.fibres[0])) {
      throw std::runtime_error("the lanes of a warp are not at the same exchange");
    }
  }
}

// Runs the warps of a block up to their next barrier; returns whether there is one.
inline bool run_to_barrier(Block& block, bool reversed) {
  const size_t count = block.warps.size();
  for (size_t i = 0; i < count; ++i) {
    Warp& warp = block.warps[reversed ? count - 1 - i : i];
    do {
      run_warp(block, warp, reversed);
    } while (!warp.fibres[0].finished && !warp.fibres[0].at_barrier);
  }
  const Fibre& first = block.warps[0].fibres[0];
  for (const Warp& warp : block.warps) {
    if (!warp.fibres[0].waits_like(first)) {
      throw std::runtime_error("the warps of a block are not at the same barrier");
    }
  }
  return !first.finished;
}

inline void start(Block& block, Fibre& fibre, unsigned thread) {
  fibre.thread = thread;
  fibre.finished = fibre.at_barrier = false;
  fibre.line = 0;
  fibre.shuffles = 0;
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.data();
  fibre.context.uc_stack.ss_size = fibre.stack.size();
  fibre.context.uc_link = &block.scheduler;
  makecontext(&fibre.context, run_fibre, 0);
}

template <typename Kernel, typename... Arguments>
void launch(Kernel kernel, int64_t blocks, int threads, bool reversed,
            const Arguments&... arguments) {
  Block& block = cuda_emulation::block();
  block.kernel = [&] { kernel(arguments...); };
  block.failure = nullptr;
  if (threads % kLanes != 0) throw std::runtime_error("the last warp of a block is not whole");
  block.warps.resize(threads / kLanes);
  gridDim.x = static_cast<unsigned>(blocks);
  for (int64_t index = 0; index < blocks; ++index) {
    blockIdx.x = static_cast<unsigned>(index);
    for (int thread = 0; thread < threads; ++thread) {
      start(block, block.warps[thread / kLanes].fibres[thread % kLanes], thread);
    }
    while (run_to_barrier(block, reversed)) {
    }
  }
}

// What `run` fails with; null if it does not.
template <typename Run>
const char* message_of(const Run& run) {
  static std::string message;
  try {
    run();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

}  // namespace cuda_emulation
