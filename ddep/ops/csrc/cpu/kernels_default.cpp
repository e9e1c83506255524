// The CPU kernels for the instructions that every processor of the architecture has: SSE2 or NEON.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.h"

#define DDEP_SET default
#define DDEP_VECTOR_BYTES 16
#include "kernels_of_set.h"
