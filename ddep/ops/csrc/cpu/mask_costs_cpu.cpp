// Matching costs of masks on the CPU: points, targets, threads, dtypes and instruction sets.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <vector>

#include "../mask_costs.h"
#include "../mask_pairs.h"
#include "kernels.h"
#include "mask_costs_problem.h"

namespace ddep {

namespace {

// A point's place in a map of some size, relative to pixel centres. A point that no pixel
// influences, NaN included, is not near.
struct Place {
  bool near;
  int64_t row, column;  // of the pixel at the top left, from -1
  double y, x;          // from that pixel, in [0, 1)

  Place(const double* point, int64_t height, int64_t width) {
    const double at_x = point[0] * static_cast<double>(width) - 0.5;
    const double at_y = point[1] * static_cast<double>(height) - 0.5;
    near = at_x >= -1 && at_x < static_cast<double>(width) && at_y >= -1 &&
           at_y < static_cast<double>(height);
    row = near ? static_cast<int64_t>(std::floor(at_y)) : -1;
    column = near ? static_cast<int64_t>(std::floor(at_x)) : -1;
    y = near ? at_y - static_cast<double>(row) : 0;
    x = near ? at_x - static_cast<double>(column) : 0;
  }

  // Of the pixels from top left to bottom right.
  template <typename T>
  void weigh(T weights[4]) const {
    weights[0] = static_cast<T>((1 - y) * (1 - x)), weights[1] = static_cast<T>((1 - y) * x);
    weights[2] = static_cast<T>(y * (1 - x)), weights[3] = static_cast<T>(y * x);
  }
};

// An image's points in the order in which its maps are read: row by row.
template <typename T>
struct SortedPoints {
  std::vector<int64_t> order;  // index into the points as given
  std::vector<MapPoint<T>> places;

  SortedPoints(const double* points, int64_t count, int64_t height, int64_t width)
      : order(count), places(count) {
    // Where points outside are: two rows of zeros.
    const int64_t outside = height + 1;
    std::vector<int64_t> first(height + 3);  // of each row's points; the last is P
    std::vector<int64_t> rows(count);
    for (int64_t i = 0; i < count; ++i) {
      const Place place(points + 2 * i, height, width);
      rows[i] = place.near ? place.row + 1 : outside;
      ++first[rows[i] + 1];
    }
    for (int64_t row = 0; row <= outside; ++row) first[row + 1] += first[row];
    for (int64_t i = 0; i < count; ++i) order[first[rows[i]]++] = i;
    for (int64_t i = 0; i < count; ++i) {
      const Place place(points + 2 * order[i], height, width);
      place.weigh(places[i].weights);
      places[i].row = static_cast<int32_t>(rows[order[i]]);
      places[i].column = static_cast<int32_t>(place.column + 1);
    }
  }
};

// An image's targets at points, laid out as the kernels read them.
template <typename T>
struct TargetSamples {
  std::vector<T> samples;
  std::vector<double> areas;

  TargetSamples(int64_t num_targets, int64_t num_points)
      : samples(groups(num_targets) * num_points * kTargetGroup), areas(num_targets) {}

  static int64_t groups(int64_t num_targets) {
    return (num_targets + kTargetGroup - 1) / kTargetGroup;
  }

  // The masks, (T, H, W), sampled bilinearly at points in the given order, with zeros outside.
  void sample(const uint8_t* masks, int64_t height, int64_t width, const double* points,
              const std::vector<int64_t>& order) {
    struct Corners {
      int64_t pixels[4];
      T weights[4];
    };
    const int64_t num_points = static_cast<int64_t>(order.size());
    std::vector<Corners> corners(num_points);
    for (int64_t i = 0; i < num_points; ++i) {
      const Place place(points + 2 * order[i], height, width);
      place.weigh(corners[i].weights);
      for (int64_t k = 0; k < 4; ++k) {
        const int64_t row = place.row + k / 2, column = place.column + k % 2;
        const bool inside = place.near && row >= 0 && row < height && column >= 0 && column < width;
        corners[i].pixels[k] = inside ? row * width + column : 0;
        if (!inside) corners[i].weights[k] = 0;
      }
    }
    fill(num_points, [&](int64_t target, int64_t i) {
      const uint8_t* mask = masks + target * height * width;
      T sum = 0;
      for (int64_t k = 0; k < 4; ++k) {
        sum += static_cast<T>(mask[corners[i].pixels[k]]) * corners[i].weights[k];
      }
      return sum;
    });
  }

  // The masks' pixels, (T, P).
  void copy(const uint8_t* masks, int64_t num_points) {
    fill(num_points,
         [&](int64_t target, int64_t i) { return static_cast<T>(masks[target * num_points + i]); });
  }

 private:
  template <typename Function>
  void fill(int64_t num_points, const Function& value) {
    const int64_t count = static_cast<int64_t>(areas.size());
    at::parallel_for(0, groups(count), 1, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group) {
        T* to = samples.data() + group * num_points * kTargetGroup;
        const int64_t first = group * kTargetGroup;
        const int64_t targets = std::min(kTargetGroup, count - first);
        for (int64_t i = 0; i < num_points; ++i) {
          for (int64_t k = 0; k < targets; ++k) {
            to[i * kTargetGroup + k] = value(first + k, i);
            areas[first + k] += static_cast<double>(to[i * kTargetGroup + k]);
          }
        }
      }
    });
  }
};

// One image's rows of the outputs, in columns from `column`. `points` is null for all pixels.
template <typename T>
void compare_image(const std::vector<at::Tensor>& logits, const uint8_t* masks, int64_t num_targets,
                   int64_t mask_height, int64_t mask_width, const double* points,
                   int64_t num_points, T* cost, T* dice, int64_t stride) {
  const int64_t queries = logits[0].size(0), height = logits[0].size(1), width = logits[0].size(2);
  TargetSamples<T> targets(num_targets, num_points);
  const SortedPoints<T> sorted(points, points ? num_points : 0, height, width);
  if (points) {
    targets.sample(masks, mask_height, mask_width, points, sorted.order);
  } else {
    targets.copy(masks, num_points);
  }
  const MaskCostProblem<T> problem = {height,
                                      width,
                                      num_points,
                                      num_targets,
                                      points ? sorted.places.data() : nullptr,
                                      targets.samples.data(),
                                      targets.areas.data()};
  const int64_t at_once = kernels<T>().mask_costs.max_maps,
                blocks = (queries + at_once - 1) / at_once;
  const int64_t layers = static_cast<int64_t>(logits.size());
  at::parallel_for(0, layers * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t layer = task / blocks, query = task % blocks * at_once;
      const int64_t row = (layer * queries + query) * stride;
      kernels<T>().mask_costs.compare(
          problem, logits[layer].template const_data_ptr<T>() + query * height * width,
          std::min(at_once, queries - query), cost + row, dice + row, stride);
    }
  });
}

}  // namespace

MaskCosts mask_costs_cpu(const MaskCostArguments& a) {
  const at::Tensor& first = a.mask_logits[0];
  const at::ScalarType type = compute_type(first);
  const at::Tensor masks = a.masks.contiguous();
  const at::Tensor points = a.points.defined() ? a.points.to(at::kDouble).contiguous() : a.points;
  const int64_t num_points = points.defined() ? points.size(1) : first.size(2) * first.size(3);
  const int64_t layers = static_cast<int64_t>(a.mask_logits.size()), total = masks.size(0);
  at::Tensor cost = at::empty({layers, first.size(1), total}, first.options().dtype(type));
  at::Tensor dice = at::empty_like(cost);
  AT_DISPATCH_FLOATING_TYPES(type, "mask_costs", [&] {
    int64_t target = 0;
    for (int64_t image = 0; image < first.size(0); ++image) {
      const int64_t num_targets = a.num_targets[image];
      if (num_targets == 0) continue;
      std::vector<at::Tensor> logits;  // (Q, h, w); a copy only of other dtypes and layouts
      for (const at::Tensor& layer : a.mask_logits) {
        logits.push_back(layer.select(0, image).to(type).contiguous());
      }
      const auto* bytes = static_cast<const uint8_t*>(masks.const_data_ptr());
      compare_image<scalar_t>(
          logits, bytes + target * masks.size(1) * masks.size(2), num_targets, masks.size(1),
          masks.size(2),
          points.defined() ? points.const_data_ptr<double>() + image * num_points * 2 : nullptr,
          num_points, cost.mutable_data_ptr<scalar_t>() + target,
          dice.mutable_data_ptr<scalar_t>() + target, total);
      target += num_targets;
    }
  });
  return {cost, dice};
}

}  // namespace ddep
