// Drawing of points as PyTorch operators: schemas and checks. They have no derivatives, and
// autocast changes nothing. The output's shape is registered in ../fake.py.
#include "point_drawing.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "mask_pairs.h"

namespace ddep {

namespace {

using at::Tensor;

void check_seed(const char* name, const Tensor& seed) {
  TORCH_CHECK_VALUE(seed.dim() == 0 && seed.scalar_type() == at::kLong, name, ": seed is ",
                    seed.scalar_type(), " of shape ", seed.sizes(), "; expected a scalar of int64");
}

template <Tensor (*uniform)(const Tensor&, int64_t, int64_t)>
Tensor checked_uniform(const Tensor& seed, int64_t rows, int64_t num_points) {
  check_seed("uniform_points", seed);
  TORCH_CHECK_VALUE(rows >= 0 && num_points >= 0, "uniform_points: rows is ", rows,
                    " and num_points ", num_points, "; expected no negative number");
  return uniform(seed, rows, num_points);
}

template <Tensor (*uncertain)(at::TensorList, const Tensor&, const Tensor&, const Tensor&, int64_t,
                              int64_t, int64_t)>
Tensor checked_uncertain(at::TensorList mask_logits, const Tensor& images, const Tensor& queries,
                         const Tensor& seed, int64_t num_points, int64_t num_candidates,
                         int64_t num_uncertain) {
  check_seed("uncertain_points", seed);
  check_predictions("uncertain_points", mask_logits, images, queries);
  TORCH_CHECK_VALUE(
      num_uncertain >= 0 && num_uncertain <= num_points && num_uncertain <= num_candidates,
      "uncertain_points: num_uncertain is ", num_uncertain, "; expected from 0 to num_points ",
      num_points, " and to num_candidates ", num_candidates);
  return uncertain(mask_logits, images, queries, seed, num_points, num_candidates, num_uncertain);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(ddep, library) {
  library.def("uniform_points(Tensor seed, int rows, int num_points) -> Tensor",
              {at::Tag::pt2_compliant_tag});
  library.def(
      "uncertain_points(Tensor[] mask_logits, Tensor images, Tensor queries, Tensor seed, "
      "int num_points, int num_candidates, int num_uncertain) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}

#define DDEP_REGISTER(key, uniform, uncertain)                      \
  TORCH_LIBRARY_IMPL(ddep, key, library) {                          \
    library.impl("uniform_points", checked_uniform<uniform>);       \
    library.impl("uncertain_points", checked_uncertain<uncertain>); \
  }
DDEP_REGISTER(CPU, uniform_points_cpu, uncertain_points_cpu)
#if defined(DDEP_WITH_CUDA)
DDEP_REGISTER(CUDA, uniform_points_cuda, uncertain_points_cuda)
#endif
#undef DDEP_REGISTER

TORCH_LIBRARY_IMPL(ddep, Autograd, library) {
  library.impl("uniform_points", torch::CppFunction::makeFallthrough());
  library.impl("uncertain_points", torch::CppFunction::makeFallthrough());
}

}  // namespace ddep
