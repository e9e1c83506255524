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
// Random numbers and sampling come before what uses them.
#include "bilinear.h"
#include "philox.h"
// Drawing and losses.
#include "dense_mask_losses_kernels.h"
#include "point_drawing_kernels.h"
#include "point_mask_losses_kernels.h"
#include "window_attention_kernels.h"
#undef DDEP_INLINE
}  // namespace of_float

namespace of_double {
using real = double;
using whole = int64_t;
#include "vectors.h"
// The kernels use the vectors.
#include "mask_costs_kernels.h"
#include "ms_deform_attn_kernels.h"
// Random numbers and sampling come before what uses them.
#include "bilinear.h"
#include "philox.h"
// Drawing and losses.
#include "dense_mask_losses_kernels.h"
#include "point_drawing_kernels.h"
#include "point_mask_losses_kernels.h"
#include "window_attention_kernels.h"
#undef DDEP_INLINE
}  // namespace of_double

}  // namespace

// In the order of Kernels' members.
// clang-format off
#define DDEP_TABLE(of_type)                                                   \
  {{of_type::forward, of_type::backward_sampling, of_type::backward_value},   \
   {of_type::kLanes, of_type::compare_masks},                                 \
   {of_type::uniform_points, of_type::uncertain_points},                      \
   {of_type::point_mask_losses, of_type::point_mask_losses_backward},         \
   {of_type::dense_mask_losses, of_type::dense_mask_losses_backward},         \
   {of_type::window_attention_forward, of_type::window_attention_backward}}
// clang-format on
extern const Kernels<float> DDEP_JOIN(kernels_, DDEP_SET, _float) = DDEP_TABLE(of_float);
extern const Kernels<double> DDEP_JOIN(kernels_, DDEP_SET, _double) = DDEP_TABLE(of_double);
#undef DDEP_TABLE

}  // namespace ddep
