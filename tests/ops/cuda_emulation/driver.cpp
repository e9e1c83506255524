// The kernels as functions that Python calls with pointers to contiguous arrays.
// clang-format off: the emulation of CUDA must come before the kernels.
#include "cuda_emulation.h"
#include "../../../ddep/ops/csrc/cuda/launch.cuh"
// clang-format on

namespace {

using namespace ddep;
using cuda_emulation::message_of;

extern "C" struct Arguments {
  int64_t images, tokens, heads, channels, queries, levels, points;
  const int64_t *shapes, *starts;
  const void *value, *reference, *places, *weights;
  const char *value_type, *sampling_type;  // PyTorch's names; the latter of places and weights
  bool levels_on_device, reversed;
};

extern "C" struct Gradients {
  void *value, *reference, *places, *weights, *attention, *exact_places;
};

bool is(const char* type, const char* name) { return std::strcmp(type, name) == 0; }

template <typename U, typename real>
Problem<U, real> problem_of(const Arguments& a) {
  Problem<U, real> p = {};
  p.images = a.images;
  p.tokens = static_cast<int>(a.tokens), p.queries = static_cast<int>(a.queries);
  p.heads = static_cast<int>(a.heads), p.channels = static_cast<int>(a.channels);
  p.points = static_cast<int>(a.points), p.samples = static_cast<int>(a.levels * a.points);
  p.levels.count = static_cast<int>(a.levels);
  if (a.levels_on_device) {
    p.levels.shapes = a.shapes, p.levels.starts = a.starts;
  } else {
    for (int64_t i = 0; i < a.levels; ++i) {
      p.levels.known[i] = make_level(a.shapes[2 * i], a.shapes[2 * i + 1], a.starts[i], a.tokens);
    }
  }
  p.reference = static_cast<const real*>(a.reference);
  p.places = static_cast<const U*>(a.places);
  p.weights = static_cast<const U*>(a.weights);
  return p;
}

auto launch_in(bool reversed) {
  return [reversed](auto kernel, int64_t blocks, const auto&... arguments) {
    cuda_emulation::launch(kernel, blocks, kThreads, reversed, arguments...);
  };
}

// Calls run(T, U, real) with a number of value's type, one of the type of places and weights, and
// one of the type of the computation.
template <typename Run>
void with_types(const Arguments& a, const Run& run) {
  if (is(a.value_type, "float64")) return run(double(), double(), double());
  if (is(a.value_type, "float32")) return run(float(), float(), float());
  const bool same = is(a.value_type, a.sampling_type);
  if (is(a.value_type, "float16")) {
    return same ? run(c10::Half(), c10::Half(), float()) : run(c10::Half(), float(), float());
  }
  return same ? run(c10::BFloat16(), c10::BFloat16(), float())
              : run(c10::BFloat16(), float(), float());
}

}  // namespace

extern "C" const char* emulate_forward(const Arguments* a, void* output) {
  return message_of([&] {
    with_types(*a, [&](auto of_value, auto of_sampling, auto of_sums) {
      using T = decltype(of_value);
      launch_forward(problem_of<decltype(of_sampling), decltype(of_sums)>(*a),
                     static_cast<const T*>(a->value), static_cast<T*>(output),
                     launch_in(a->reversed));
    });
  });
}

extern "C" const char* emulate_backward(const Arguments* a, const void* grad_output,
                                        const Gradients* g) {
  return message_of([&] {
    with_types(*a, [&](auto of_value, auto of_sampling, auto of_sums) {
      using T = decltype(of_value);
      using U = decltype(of_sampling);
      using real = decltype(of_sums);
      const BackwardOutputs<U, real> out = {
          static_cast<real*>(g->value), static_cast<U*>(g->places), static_cast<U*>(g->weights),
          static_cast<real*>(g->attention), static_cast<real*>(g->exact_places)};
      launch_backward(problem_of<U, real>(*a), static_cast<const T*>(a->value),
                      static_cast<const T*>(grad_output), out, static_cast<real*>(g->reference),
                      launch_in(a->reversed));
    });
  });
}
