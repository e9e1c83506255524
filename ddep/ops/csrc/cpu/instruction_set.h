// The instruction sets that kernels are compiled for, and the one that this machine runs.
#pragma once

namespace ddep {

inline bool has_avx2() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return has;
#else
  return false;
#endif
}

}  // namespace ddep
