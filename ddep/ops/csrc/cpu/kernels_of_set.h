// Defines kernels_<set>_float and kernels_<set>_double. The file that includes this has raised the
// instruction set, and says how many bytes a vector has (DDEP_VECTOR_BYTES) and what the set is
// called (DDEP_SET).

#define DDEP_JOIN_(a, b, c) a##b##c
#define DDEP_JOIN(a, b, c) DDEP_JOIN_(a, b, c)

namespace ddep {
namespace {

constexpr int64_t kVectorBytes = DDEP_VECTOR_BYTES;

namespace of_float {
using real = float;
using whole = int32_t;
#include "kernels.h"
}  // namespace of_float

namespace of_double {
using real = double;
using whole = int64_t;
#include "kernels.h"
}  // namespace of_double

}  // namespace

extern const Kernels<float> DDEP_JOIN(kernels_, DDEP_SET, _float) = {
    of_float::forward, of_float::backward_sampling, of_float::backward_value};
extern const Kernels<double> DDEP_JOIN(kernels_, DDEP_SET, _double) = {
    of_double::forward, of_double::backward_sampling, of_double::backward_value};

}  // namespace ddep
