// The input of the CPU kernels of matching costs.
#pragma once

#include <cstdint>

namespace ddep {

// Where a point samples a map: at rows `row` and `row + 1` and columns `column` and `column + 1`,
// with weights from top left to bottom right. Rows and columns are counted from a border of zeros:
// the map's first pixel is at row 1 and column 1. Below the border, all is zero.
template <typename T>
struct MapPoint {
  T weights[4];
  int32_t row, column;
};

// Targets that are compared at once.
constexpr int64_t kTargetGroup = 4;

// What an image's predictions of h x w pixels are compared with: `num_targets` masks at
// `num_points` points.
template <typename T>
struct MaskCostProblem {
  int64_t height, width;
  int64_t num_points, num_targets;
  // Ascending by row. Null: the points are the h * w pixels, in their order.
  const MapPoint<T>* points;
  // (number of groups, P, kTargetGroup): the masks at the points, in the points' order. A last
  // group that is not full is filled with zeros. In [0, 1]; 0 or 1 at pixels.
  const T* samples;
  const double* areas;  // (T): the sums of the samples
};

// The kernels of one instruction set.
template <typename T>
struct MaskCostKernels {
  int64_t max_maps;  // maps that are processed at once
  // Compares `num_maps` (at most max_maps) consecutive maps with the targets. The cost and the dice
  // loss of the i-th with target t go to cost[i * stride + t] and dice[i * stride + t]. The cost is
  // the cross entropy at points, and the focal loss at pixels.
  void (*compare)(const MaskCostProblem<T>&, const T* maps, int64_t num_maps, T* cost, T* dice,
                  int64_t stride);
};

}  // namespace ddep
