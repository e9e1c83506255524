// Matching costs of masks (Mask2Former, arXiv 2112.01527, section 3.3, and MaskFormer, arXiv
// 2107.06278, section 3.2): two matrix products of what is sampled or read tile by tile.
#pragma once

#include <type_traits>

#include "bilinear.cuh"
#include "logistic.cuh"
#include "mask_pairs.cuh"

namespace ddep {

constexpr int kCostThreads = 256;
constexpr int kTilePoints = 64, kTileQueries = 16, kTileTargets = 32;  // of a block, at once
constexpr int kMaxImages = 256;

// Targets of all images lie side by side: image b has those from first[b] to first[b + 1].
struct TargetRanges {
  int num_images, largest;  // number of an image's targets
  int first[kMaxImages + 1];

  __device__ __forceinline__ int image_of(int target) const {
    int image = 0;
    while (first[image + 1] <= target) ++image;
    return image;
  }
};

// A thread samples a target at a point. masks (T, H, W); points (B, P, 2); labels (T, P)
template <typename real>
__global__ void __launch_bounds__(kCostThreads)
    sample_targets_kernel(const uint8_t* __restrict__ masks, int height, int width,
                          const __grid_constant__ TargetRanges targets,
                          const real* __restrict__ points, int num_points,
                          real* __restrict__ labels) {
  const int chunks = (num_points + kCostThreads - 1) / kCostThreads;
  const int target = blockIdx.x / chunks;
  const int i = static_cast<int>(blockIdx.x % chunks) * kCostThreads + threadIdx.x;
  if (i >= num_points) return;
  const real* point = points + (int64_t{targets.image_of(target)} * num_points + i) * 2;
  const Place<real> place(point[0], point[1], height, width);
  labels[int64_t{target} * num_points + i] = place.sample(masks + int64_t{target} * height * width);
}

// At points, labels are numbers and the cost is the cross entropy; at all pixels of the
// predictions, labels are the masks' bytes and the cost is the focal loss.
template <typename T, typename real, bool kAtPoints>
struct CostProblem {
  using Label = std::conditional_t<kAtPoints, real, uint8_t>;
  Layers<const T> layers;
  int num_layers, num_queries, height, width, num_points;
  const real* points;   // (B, P, 2), or null
  const Label* labels;  // (T, P)
  int num_targets;      // T, of all images
  TargetRanges targets;
  real *cost, *dice;  // (L, Q, T)
};

template <typename T, typename real, bool kAtPoints>
__host__ __device__ inline int64_t cost_blocks(const CostProblem<T, real, kAtPoints>& p) {
  const int64_t query_tiles = (p.num_queries + kTileQueries - 1) / kTileQueries;
  const int64_t target_tiles = (p.targets.largest + kTileTargets - 1) / kTileTargets;
  return int64_t{p.num_layers} * p.targets.num_images * query_tiles * target_tiles;
}

// A tile of points. Rows of odd length keep threads that read or write a column off each other's
// memory banks.
template <typename real>
struct CostTile {
  real if_one[kTilePoints][kTileQueries + 1];   // the cost where the label is 1
  real if_zero[kTilePoints][kTileQueries + 1];  // and where it is 0
  real sigmoids[kTilePoints][kTileQueries + 1];
  real labels[kTileTargets][kTilePoints + 1];
};

// A block compares a tile of queries with a tile of targets of one image in one layer. A thread
// adds up its pairs: a tile in `real`, all tiles in float64.
template <typename T, typename real, bool kAtPoints>
__global__ void __launch_bounds__(kCostThreads)
    mask_costs_kernel(const __grid_constant__ CostProblem<T, real, kAtPoints> p) {
  constexpr int kEach = kTileQueries * kTileTargets / kCostThreads;  // targets of a thread
  constexpr int kApart = kTileTargets / kEach;
  static_assert(kCostThreads % kTilePoints == 0 && kCostThreads == kTileQueries * kApart);
  __shared__ CostTile<real> tile;
  const int target_tiles = (p.targets.largest + kTileTargets - 1) / kTileTargets;
  const int query_tiles = (p.num_queries + kTileQueries - 1) / kTileQueries;
  unsigned block = blockIdx.x;
  const int first_in_image = static_cast<int>(block % target_tiles) * kTileTargets;
  block /= target_tiles;
  const int first_query = static_cast<int>(block % query_tiles) * kTileQueries;
  block /= query_tiles;
  const int layer = block % p.num_layers, image = block / p.num_layers;
  const int first_target = p.targets.first[image] + first_in_image;
  const int targets = min(p.targets.first[image + 1] - first_target, kTileTargets);
  if (targets <= 0) return;  // another image has more
  const int queries = min(p.num_queries - first_query, kTileQueries);
  const int64_t area = int64_t{p.height} * p.width;
  const T* maps = p.layers.of[layer] + (int64_t{image} * p.num_queries + first_query) * area;
  const auto* labels = p.labels + int64_t{first_target} * p.num_points;

  const int own_query = threadIdx.x % kTileQueries, own_target = threadIdx.x / kTileQueries;
  const int own_point = threadIdx.x % kTilePoints;  // when the tile is filled
  double costs[kEach] = {}, intersections[kEach] = {}, totals[kEach] = {};
  for (int first = 0; first < p.num_points; first += kTilePoints) {
    const int i = first + own_point;
    const bool valid = i < p.num_points;
    real x = 0, y = 0;
    if constexpr (kAtPoints) {
      const real* point = p.points + (int64_t{image} * p.num_points + (valid ? i : 0)) * 2;
      x = point[0], y = point[1];
    }
    const Place<real> place(x, y, p.height, p.width);
    for (int query = threadIdx.x / kTilePoints; query < kTileQueries;
         query += kCostThreads / kTilePoints) {
      real if_one = 0, if_zero = 0, sigmoid = 0;
      if (valid && query < queries) {
        const T* map = maps + query * area;
        if constexpr (kAtPoints) {
          const Logistic<real> at(place.sample(map));
          if_one = at.if_one(), if_zero = at.if_zero(), sigmoid = at.sigmoid;
        } else {
          const Logistic<real> at(static_cast<real>(map[i]));
          if_one = focal_if_one(at), if_zero = focal_if_zero(at), sigmoid = at.sigmoid;
        }
      }
      tile.if_one[own_point][query] = if_one;
      tile.if_zero[own_point][query] = if_zero;
      tile.sigmoids[own_point][query] = sigmoid;
    }
    for (int target = threadIdx.x / kTilePoints; target < kTileTargets;
         target += kCostThreads / kTilePoints) {
      const bool exists = valid && target < targets;
      tile.labels[target][own_point] =
          exists ? static_cast<real>(labels[int64_t{target} * p.num_points + i]) : real(0);
    }
    __syncthreads();
    real cost[kEach] = {}, intersection[kEach] = {}, total[kEach] = {};
    for (int j = 0; j < kTilePoints; ++j) {
      const real if_one = tile.if_one[j][own_query], if_zero = tile.if_zero[j][own_query];
      const real sigmoid = tile.sigmoids[j][own_query];
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        const real label = tile.labels[own_target + k * kApart][j];
        cost[k] += if_one * label + if_zero * (1 - label);
        intersection[k] += sigmoid * label;
        total[k] += sigmoid + label;
      }
    }
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      costs[k] += cost[k], intersections[k] += intersection[k], totals[k] += total[k];
    }
    __syncthreads();
  }
  if (own_query >= queries) return;
  const int64_t row = (int64_t{layer} * p.num_queries + first_query + own_query) * p.num_targets;
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const int target = own_target + k * kApart;
    if (target >= targets) continue;
    const int64_t to = row + first_target + target;
    p.cost[to] = static_cast<real>(costs[k] / p.num_points);
    p.dice[to] = static_cast<real>(1 - (2 * intersections[k] + 1) / (totals[k] + 1));
  }
}

}  // namespace ddep
