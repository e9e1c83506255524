// Defines kernels_<set>_float and kernels_<set>_double. The including file raises the instruction
// set and defines its name (DDEP_SET) and the bytes of a vector (DDEP_VECTOR_BYTES).

#define DDEP_JOIN_(a, b, c) a##b##c
#define DDEP_JOIN(a, b, c) DDEP_JOIN_(a, b, c)

namespace ddep {
namespace {

constexpr int64_t kVectorBytes = DDEP_VECTOR_BYTES;

namespace of_float {
using real = float;
using whole = int32_t;
#include "vectors.h"
// The kernels use the vectors.
#include "mask_costs_kernels.h"
#include "ms_deform_attn_kernels.h"
#undef DDEP_INLINE
}  // namespace of_float

namespace of_double {
using real = double;
using whole = int64_t;
#include "vectors.h"
// The kernels use the vectors.
#include "mask_costs_kernels.h"
#include "ms_deform_attn_kernels.h"
#undef DDEP_INLINE
}  // namespace of_double

}  // namespace

extern const Kernels<float> DDEP_JOIN(kernels_, DDEP_SET, _float) = {
    of_float::forward, of_float::backward_sampling, of_float::backward_value};
extern const Kernels<double> DDEP_JOIN(kernels_, DDEP_SET, _double) = {
    of_double::forward, of_double::backward_sampling, of_double::backward_value};

extern const MaskCostKernels<float> DDEP_JOIN(mask_cost_kernels_, DDEP_SET, _float) = {
    of_float::kLanes, of_float::compare_masks};
extern const MaskCostKernels<double> DDEP_JOIN(mask_cost_kernels_, DDEP_SET, _double) = {
    of_double::kLanes, of_double::compare_masks};

}  // namespace ddep
