// Matching costs of masks on the CPU (Mask2Former, arXiv 2112.01527, section 3.3, and MaskFormer,
// arXiv 2107.06278, section 3.2). Included twice, see vectors.h. The lanes of a vector are maps.
//
// With z = e^-|x|, all follows from one exponential: the sigmoid is 1 / (1 + z) or z / (1 + z), and
// the cross entropy of a logit x with a target m in [0, 1] is max(x, 0) - x m + log(1 + z). Its
// last term is the same for all targets, and none is negative: nothing cancels.

constexpr int64_t kTilePoints = 256;  // handled at once; a tile stays in the L1 cache
// A product of this many 1 + z, each at most 2, is far below the largest float.
constexpr int64_t kRunPoints = 64;

// A tile of points, kLanes maps each.
struct CostTile {
  real logits[kTilePoints * kLanes];
  real sigmoids[kTilePoints * kLanes];
  // At pixels only: the focal loss where a target is 1, and where it is 0.
  real if_one[kTilePoints * kLanes], if_zero[kTilePoints * kLanes];
};

// What has been summed over tiles, for each map.
struct CostSums {
  std::vector<double> losses, intersections;  // (targets in whole groups, kLanes)
  double log_sums[kLanes] = {};               // of log(1 + z)
  double sigmoids[kLanes] = {};
};

DDEP_INLINE void add_lanes(double* sums, vector v) {
  real lanes[kLanes];
  store(lanes, v);
  for (int64_t i = 0; i < kLanes; ++i) sums[i] += lanes[i];
}

// Two rows of kLanes maps with zeros around them, in the order (column, map).
struct MapRows {
  std::vector<real> rows[2];  // row r is rows[r % 2]
  int64_t last = -1;          // and is loaded up to this one
};

static void load_row(const MaskCostProblem<real>& problem, const real* maps, int64_t num_maps,
                     int64_t row, std::vector<real>& target) {
  if (row < 1 || row > problem.height) {
    std::fill(target.begin(), target.end(), real(0));
    return;
  }
  for (int64_t map = 0; map < num_maps; ++map) {
    const real* from = maps + (map * problem.height + row - 1) * problem.width;
    real* to = target.data() + kLanes + map;
    for (int64_t column = 0; column < problem.width; ++column) to[column * kLanes] = from[column];
  }
}

static void sample_tile(const MaskCostProblem<real>& problem, const real* maps, int64_t num_maps,
                        int64_t begin, int64_t count, MapRows& loaded, CostTile& tile) {
  for (int64_t i = 0; i < count; ++i) {
    const MapPoint<real>& point = problem.points[begin + i];
    for (int64_t row = std::max<int64_t>(loaded.last + 1, point.row); row <= point.row + 1; ++row) {
      load_row(problem, maps, num_maps, row, loaded.rows[row % 2]);
      loaded.last = row;
    }
    const real* top = loaded.rows[point.row % 2].data() + point.column * kLanes;
    const real* bottom = loaded.rows[(point.row + 1) % 2].data() + point.column * kLanes;
    store(tile.logits + i * kLanes,
          load(top) * point.weights[0] + load(top + kLanes) * point.weights[1] +
              load(bottom) * point.weights[2] + load(bottom + kLanes) * point.weights[3]);
  }
}

static void load_pixels(const MaskCostProblem<real>& problem, const real* maps, int64_t num_maps,
                        int64_t begin, int64_t count, CostTile& tile) {
  for (int64_t map = 0; map < num_maps; ++map) {
    const real* from = maps + map * problem.num_points + begin;
    for (int64_t i = 0; i < count; ++i) tile.logits[i * kLanes + map] = from[i];
  }
}

DDEP_INLINE vector minus_absolute(vector x) { return x > 0 ? -x : x; }

// The logs of a run of points are one logarithm of a product of 1 + z. What the product is above 1
// is kept instead of the product, so that it is as precise as the log of one z, however small.
static void sum_activations(int64_t count, CostTile& tile, CostSums& sums) {
  double products[kLanes] = {};  // minus 1
  for (int64_t begin = 0; begin < count; begin += kRunPoints) {
    const int64_t end = std::min(begin + kRunPoints, count);
    vector product = {}, sigmoids = {};
    for (int64_t i = begin; i < end; ++i) {
      const vector x = load(tile.logits + i * kLanes);
      const vector z = exponential(minus_absolute(x));
      const vector sigmoid = (x > 0 ? vector{} + 1 : z) / (z + 1);
      store(tile.sigmoids + i * kLanes, sigmoid);
      sigmoids += sigmoid;
      product += z + z * product;
    }
    add_lanes(sums.sigmoids, sigmoids);
    real lanes[kLanes];
    store(lanes, product);
    for (int64_t i = 0; i < kLanes; ++i) products[i] += lanes[i] + lanes[i] * products[i];
  }
  for (int64_t i = 0; i < kLanes; ++i) sums.log_sums[i] += std::log1p(products[i]);
}

// Focal loss with gamma 2 and alpha 0.25 (RetinaNet, arXiv 1708.02002, equation 5).
static void sum_focal_activations(int64_t count, CostTile& tile, CostSums& sums) {
  for (int64_t begin = 0; begin < count; begin += kRunPoints) {
    const int64_t end = std::min(begin + kRunPoints, count);
    vector sigmoids = {};
    for (int64_t i = begin; i < end; ++i) {
      const vector x = load(tile.logits + i * kLanes);
      const whole_vector positive = x > 0;
      const vector z = exponential(minus_absolute(x)), one = vector{} + 1;
      const vector sigmoid = (positive ? one : z) / (z + 1);
      const vector opposite = (positive ? z : one) / (z + 1);
      const vector log = log1p(z);
      store(tile.sigmoids + i * kLanes, sigmoid);
      store(tile.if_one + i * kLanes,
            real(0.25) * opposite * opposite * ((positive ? vector{} : -x) + log));
      store(tile.if_zero + i * kLanes,
            real(0.75) * sigmoid * sigmoid * ((positive ? x : vector{}) + log));
      sigmoids += sigmoid;
    }
    add_lanes(sums.sigmoids, sigmoids);
  }
}

// Compares a tile with a group of targets.
DDEP_INLINE void add_pairs(const CostTile& tile, int64_t count, const real* samples, bool focal,
                           double* loss_sums, double* intersection_sums) {
  vector losses[kTargetGroup] = {}, intersections[kTargetGroup] = {};
  for (int64_t i = 0; i < count; ++i) {
    const vector sigmoid = load(tile.sigmoids + i * kLanes);
    const vector x = load((focal ? tile.if_one : tile.logits) + i * kLanes);
    const vector if_zero = focal ? load(tile.if_zero + i * kLanes) : (x > 0 ? x : vector{});
    for (int64_t k = 0; k < kTargetGroup; ++k) {
      const real m = samples[i * kTargetGroup + k];
      losses[k] += focal ? x * m + if_zero * (1 - m) : if_zero - x * m;
      intersections[k] += sigmoid * m;
    }
  }
  for (int64_t k = 0; k < kTargetGroup; ++k) {
    add_lanes(loss_sums + k * kLanes, losses[k]);
    add_lanes(intersection_sums + k * kLanes, intersections[k]);
  }
}

static void compare_masks(const MaskCostProblem<real>& problem, const real* maps, int64_t num_maps,
                          real* cost, real* dice, int64_t stride) {
  const bool focal = !problem.points;
  const int64_t groups = (problem.num_targets + kTargetGroup - 1) / kTargetGroup;
  MapRows loaded;
  if (!focal) {
    for (auto& row : loaded.rows) row.resize((problem.width + 2) * kLanes);
  }
  CostSums sums;
  sums.losses.resize(groups * kTargetGroup * kLanes);
  sums.intersections.resize(groups * kTargetGroup * kLanes);
  std::vector<CostTile> tiles(1);
  CostTile& tile = tiles[0];
  for (int64_t begin = 0; begin < problem.num_points; begin += kTilePoints) {
    const int64_t count = std::min(kTilePoints, problem.num_points - begin);
    if (focal) {
      load_pixels(problem, maps, num_maps, begin, count, tile);
      sum_focal_activations(count, tile, sums);
    } else {
      sample_tile(problem, maps, num_maps, begin, count, loaded, tile);
      sum_activations(count, tile, sums);
    }
    for (int64_t group = 0; group < groups; ++group) {
      const real* samples = problem.samples + (group * problem.num_points + begin) * kTargetGroup;
      double* losses = sums.losses.data() + group * kTargetGroup * kLanes;
      double* intersections = sums.intersections.data() + group * kTargetGroup * kLanes;
      if (focal) {
        add_pairs(tile, count, samples, true, losses, intersections);
      } else {
        add_pairs(tile, count, samples, false, losses, intersections);
      }
    }
  }
  for (int64_t map = 0; map < num_maps; ++map) {
    for (int64_t t = 0; t < problem.num_targets; ++t) {
      const double loss = sums.losses[t * kLanes + map] + sums.log_sums[map];
      const double intersection = sums.intersections[t * kLanes + map];
      const double total = sums.sigmoids[map] + problem.areas[t];
      cost[map * stride + t] = static_cast<real>(loss / static_cast<double>(problem.num_points));
      dice[map * stride + t] = static_cast<real>(1 - (2 * intersection + 1) / (total + 1));
    }
  }
}
