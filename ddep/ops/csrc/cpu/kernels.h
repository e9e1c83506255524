// The CPU kernels of all operators, and the choice of those for this machine's instruction set.
#pragma once

#include <type_traits>

#include "instruction_set.h"
#include "mask_costs_problem.h"
#include "ms_deform_attn_problem.h"
#include "point_mask_problem.h"
#include "window_attention_problem.h"

namespace ddep {

// The kernels of one instruction set.
template <typename T>
struct Kernels {
  MsDeformAttnKernels<T> ms_deform_attn;
  MaskCostKernels<T> mask_costs;
  PointDrawingKernels<T> point_drawing;
  PointMaskLossesKernels<T> point_mask_losses;
  DenseMaskLossesKernels<T> dense_mask_losses;
  WindowAttentionKernels<T> window_attention;
};

#define DDEP_DECLARE_KERNELS(set)                    \
  extern const Kernels<float> kernels_##set##_float; \
  extern const Kernels<double> kernels_##set##_double
DDEP_DECLARE_KERNELS(default);
#if defined(__x86_64__)
DDEP_DECLARE_KERNELS(avx2);
#endif
#undef DDEP_DECLARE_KERNELS

template <typename T>
const Kernels<T>& kernels() {
  if constexpr (std::is_same_v<T, float>) {
#if defined(__x86_64__)
    if (has_avx2()) return kernels_avx2_float;
#endif
    return kernels_default_float;
  } else {
#if defined(__x86_64__)
    if (has_avx2()) return kernels_avx2_double;
#endif
    return kernels_default_double;
  }
}

}  // namespace ddep
