// The kernels of point drawing, mask losses and matching costs as functions that Python calls with
// pointers to contiguous arrays.
// clang-format off: the emulation of CUDA must come before the kernels.
#include "cuda_emulation.h"
#include "../../../ddep/ops/csrc/cuda/dense_mask_losses.cuh"
#include "../../../ddep/ops/csrc/cuda/mask_costs.cuh"
#include "../../../ddep/ops/csrc/cuda/point_drawing.cuh"
#include "../../../ddep/ops/csrc/cuda/point_mask_losses.cuh"
// clang-format on

namespace {

using namespace ddep;
using cuda_emulation::message_of;

extern "C" struct MaskArguments {
  int64_t layers, images, queries, height, width;  // of the mask logits
  int64_t pairs, targets, mask_height, mask_width, points;
  const void* const* logits;  // of each layer
  const int64_t *images_of, *queries_of, *targets_of;
  const uint8_t* masks;
  const void* at;    // the points
  const char* type;  // PyTorch's name, of the mask logits
  bool reversed;
};

// Calls run(T, real) with a number of the logits' type and one of the type of the computation.
template <typename Run>
void with_types(const MaskArguments& a, const Run& run) {
  const auto is = [&](const char* name) { return std::strcmp(a.type, name) == 0; };
  if (is("float64")) return run(double(), double());
  if (is("float32")) return run(float(), float());
  if (is("float16")) return run(c10::Half(), float());
  run(c10::BFloat16(), float());
}

template <typename T>
Layers<T> layers_of(const void* const* pointers, int64_t count) {
  Layers<T> layers = {};
  for (int64_t i = 0; i < count; ++i) {
    layers.of[i] = static_cast<T*>(const_cast<void*>(pointers[i]));
  }
  return layers;
}

template <typename T>
Pairs<T> pairs_of(const MaskArguments& a) {
  Pairs<T> pairs = {};
  Predictions<T>& p = pairs.predictions;
  p.layers = layers_of<const T>(a.logits, a.layers);
  p.num_images = a.images, p.num_queries = a.queries;
  p.height = static_cast<int>(a.height), p.width = static_cast<int>(a.width);
  p.pairs = static_cast<int>(a.pairs), p.images = a.images_of, p.queries = a.queries_of;
  pairs.masks = a.masks, pairs.targets = a.targets_of, pairs.num_targets = a.targets;
  pairs.height = static_cast<int>(a.mask_height), pairs.width = static_cast<int>(a.mask_width);
  return pairs;
}

template <typename T, typename real, bool kAtPoints>
void run_costs(const MaskArguments& a, const int64_t* num_targets, void* labels, void* cost,
               void* dice) {
  CostProblem<T, real, kAtPoints> p = {};
  p.layers = layers_of<const T>(a.logits, a.layers);
  p.num_layers = static_cast<int>(a.layers), p.num_queries = static_cast<int>(a.queries);
  p.height = static_cast<int>(a.height), p.width = static_cast<int>(a.width);
  p.num_points = static_cast<int>(a.points), p.num_targets = static_cast<int>(a.targets);
  p.targets.num_images = static_cast<int>(a.images);
  for (int64_t i = 0; i < a.images; ++i) {
    const int count = static_cast<int>(num_targets[i]);
    p.targets.first[i + 1] = p.targets.first[i] + count;
    p.targets.largest = count > p.targets.largest ? count : p.targets.largest;
  }
  p.cost = static_cast<real*>(cost), p.dice = static_cast<real*>(dice);
  if constexpr (kAtPoints) {
    p.points = static_cast<const real*>(a.at), p.labels = static_cast<const real*>(labels);
    const int64_t chunks = (a.points + kCostThreads - 1) / kCostThreads;
    cuda_emulation::launch(sample_targets_kernel<real>, a.targets * chunks, kCostThreads,
                           a.reversed, a.masks, static_cast<int>(a.mask_height),
                           static_cast<int>(a.mask_width), p.targets, p.points, p.num_points,
                           static_cast<real*>(labels));
  } else {
    p.labels = a.masks;
  }
  cuda_emulation::launch(mask_costs_kernel<T, real, kAtPoints>, cost_blocks(p), kCostThreads,
                         a.reversed, p);
}

}  // namespace

extern "C" const char* emulate_uniform(int64_t seed, bool on_device, int64_t rows, int64_t points,
                                       float* out, bool reversed) {
  return message_of([&] {
    const Seed given = {on_device ? &seed : nullptr, on_device ? 0 : seed};
    const int64_t threads = rows * ((points + 1) / 2);
    cuda_emulation::launch(uniform_points_kernel, (threads + kUniformThreads - 1) / kUniformThreads,
                           kUniformThreads, reversed, given, rows, static_cast<int>(points), out);
  });
}

// keys (blocks, num_candidates), of 8 bytes
extern "C" const char* emulate_uncertain(const MaskArguments* a, int64_t seed, int64_t blocks,
                                         const int64_t* drawing, void* keys, float* out) {
  return message_of([&] {
    with_types(*a, [&](auto of_logits, auto of_sums) {
      using T = decltype(of_logits);
      using real = decltype(of_sums);
      const Drawing sizes = {static_cast<int>(drawing[0]), static_cast<int>(drawing[1]),
                             static_cast<int>(drawing[2])};
      cuda_emulation::launch(uncertain_points_kernel<T, real>, blocks, kDrawingThreads, a->reversed,
                             pairs_of<T>(*a).predictions, Seed{nullptr, seed},
                             static_cast<int>(a->layers * a->pairs), sizes,
                             static_cast<Key<real>*>(keys), out);
    });
  });
}

// Losses at points, or over all pixels if there are no points.
extern "C" const char* emulate_losses(const MaskArguments* a, void* loss, void* dice) {
  return message_of([&] {
    with_types(*a, [&](auto of_logits, auto of_sums) {
      using T = decltype(of_logits);
      using real = decltype(of_sums);
      const Pairs<T> pairs = pairs_of<T>(*a);
      const int64_t rows = a->layers * a->pairs;
      if (a->at) {
        cuda_emulation::launch(point_mask_losses_kernel<T, real>, rows, kLossThreads, a->reversed,
                               pairs, static_cast<const real*>(a->at), static_cast<int>(a->points),
                               static_cast<real*>(loss), static_cast<real*>(dice));
      } else {
        const PairResizing<real> resizing = {{pairs.predictions.height, pairs.height},
                                             {pairs.predictions.width, pairs.width}};
        cuda_emulation::launch(dense_mask_losses_kernel<T, real>, rows, kDenseThreads, a->reversed,
                               pairs, resizing, static_cast<real*>(loss), static_cast<real*>(dice));
      }
    });
  });
}

// rows: zeros, (L, N, h, w), for logits of a half type at points; else null
extern "C" const char* emulate_losses_backward(const MaskArguments* a, const void* grad_loss,
                                               const void* grad_dice, void* rows,
                                               const void* const* gradients) {
  return message_of([&] {
    with_types(*a, [&](auto of_logits, auto of_sums) {
      using T = decltype(of_logits);
      using real = decltype(of_sums);
      const Pairs<T> pairs = pairs_of<T>(*a);
      const int64_t count = a->layers * a->pairs;
      const auto of_loss = static_cast<const real*>(grad_loss);
      const auto of_dice = static_cast<const real*>(grad_dice);
      if (a->at) {
        GradientSums<real> sums = {};
        sums.rows = static_cast<real*>(rows);
        if (!rows) sums.layers = layers_of<real>(gradients, a->layers);
        cuda_emulation::launch(point_mask_losses_backward_kernel<T, real>, count, kLossThreads,
                               a->reversed, pairs, static_cast<const real*>(a->at),
                               static_cast<int>(a->points), of_loss, of_dice, sums);
        if (rows) {
          cuda_emulation::launch(write_gradients_kernel<T, real>, count, kLossThreads, a->reversed,
                                 pairs.predictions, static_cast<const real*>(rows),
                                 layers_of<T>(gradients, a->layers));
        }
      } else {
        const PairResizing<real> resizing = {{pairs.predictions.height, pairs.height},
                                             {pairs.predictions.width, pairs.width}};
        cuda_emulation::launch(dense_mask_losses_backward_kernel<T, real>, count, kDenseThreads,
                               a->reversed, pairs, resizing, of_loss, of_dice,
                               layers_of<T>(gradients, a->layers));
      }
    });
  });
}

// Costs at points, with room for their labels (T, P), or over all pixels if there are no points.
extern "C" const char* emulate_costs(const MaskArguments* a, const int64_t* num_targets,
                                     void* labels, void* cost, void* dice) {
  return message_of([&] {
    with_types(*a, [&](auto of_logits, auto of_sums) {
      using T = decltype(of_logits);
      using real = decltype(of_sums);
      if (a->at) {
        run_costs<T, real, true>(*a, num_targets, labels, cost, dice);
      } else {
        run_costs<T, real, false>(*a, num_targets, nullptr, cost, dice);
      }
    });
  });
}
