// Launches on the current stream, and the sizes that kernels take.
#pragma once

#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>

#include <cstdint>
#include <limits>
#include <utility>

namespace ddep {

// Kernels count a few things in 32 bits; addresses have 64.
inline int narrow(const char* operation, const char* name, int64_t size) {
  TORCH_CHECK(size <= std::numeric_limits<int>::max(), operation, ": ", name, " is ", size,
              "; CUDA kernels take at most ", std::numeric_limits<int>::max());
  return static_cast<int>(size);
}

struct Launch {
  const char* operation;
  int threads;  // of a block

  template <typename... Parameters, typename... Given>
  void operator()(void (*kernel)(Parameters...), int64_t blocks, Given&&... given) const {
    TORCH_CHECK(blocks > 0 && blocks <= std::numeric_limits<int>::max(), operation,
                " has too much to do for one launch of a CUDA kernel");
    kernel<<<static_cast<unsigned>(blocks), threads, 0, at::cuda::getCurrentCUDAStream()>>>(
        std::forward<Given>(given)...);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

}  // namespace ddep
