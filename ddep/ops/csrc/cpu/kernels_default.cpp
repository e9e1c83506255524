// The CPU kernels for the instructions that every processor of the architecture has: SSE2 or NEON.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "mask_costs_problem.h"
#include "ms_deform_attn_problem.h"

#define DDEP_SET default
#define DDEP_VECTOR_BYTES 16
#include "kernels_of_set.h"
