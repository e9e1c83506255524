// Cross entropy and dice loss of a predicted and a true mask at points (Mask2Former, arXiv
// 2112.01527, section 3.3). Included twice, see vectors.h.

// What the losses are made of; vectors add up a chunk, and double all chunks.
struct LossSums {
  double cross_entropy, intersection, probabilities, labels;
};

// Reads `count` points; the chunk's others are outside.
static void load_chunk(const real* points, int64_t count, real* x, real* y) {
  for (int64_t i = 0; i < count; ++i) x[i] = points[2 * i], y[i] = points[2 * i + 1];
  std::fill(x + count, x + kChunk, real(-9));
  std::fill(y + count, y + kChunk, real(-9));
}

// Adds a chunk's first `count` points and writes the probabilities of the prediction.
static void add_losses(const real* logits, const real* labels, int64_t count, real* probabilities,
                       LossSums& sums) {
  vector cross_entropy = {}, intersection = {}, of_probabilities = {}, of_labels = {};
  whole_vector lane = {};
  for (int64_t i = 0; i < kLanes; ++i) lane[i] = static_cast<whole>(i);
  for (int64_t i = 0; i < count; i += kLanes) {
    const whole_vector counts = lane < static_cast<whole>(count - i);
    const vector x = load(logits + i), label = load(labels + i);
    const Logistic of_x = logistic(x);
    store(probabilities + i, of_x.sigmoid);
    // In this order large logits cancel before anything is rounded.
    const vector loss = (positive_part(x) - x * label) + of_x.tail;
    cross_entropy += counts ? loss : vector{};
    intersection += counts ? of_x.sigmoid * label : vector{};
    of_probabilities += counts ? of_x.sigmoid : vector{};
    of_labels += label;  // 0 outside
  }
  sums.cross_entropy += sum_lanes(cross_entropy);
  sums.intersection += sum_lanes(intersection);
  sums.probabilities += sum_lanes(of_probabilities);
  sums.labels += sum_lanes(of_labels);
}

static void point_mask_losses(const MaskMap<real>& map, const TrueMask& mask, const real* points,
                              int64_t count, real* cross_entropy, real* dice) {
  real x[kChunk], y[kChunk], logits[kChunk], labels[kChunk], probabilities[kChunk];
  MapPlaces<real> places;
  LossSums sums = {};
  for (int64_t first = 0; first < count; first += kChunk) {
    const int64_t in_chunk = std::min(kChunk, count - first);
    load_chunk(points + 2 * first, in_chunk, x, y);
    find_in_map(x, y, map.height, map.width, places);
    sample_map(map, places, logits);
    sample_mask(mask, x, y, labels);
    add_losses(logits, labels, in_chunk, probabilities, sums);
  }
  *cross_entropy = static_cast<real>(sums.cross_entropy / static_cast<double>(count));
  *dice =
      static_cast<real>(1 - (2 * sums.intersection + 1) / (sums.probabilities + sums.labels + 1));
}

static void point_mask_losses_backward(const MaskMap<real>& map, const TrueMask& mask,
                                       const real* points, int64_t count, real grad_cross_entropy,
                                       real grad_dice, real* grad_map) {
  real x[kChunk], y[kChunk], logits[kChunk], gradients[kChunk];
  const int64_t chunks = (count + kChunk - 1) / kChunk;
  const std::unique_ptr<PointChunk<real>[]> kept(new PointChunk<real>[chunks]);
  LossSums sums = {};
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t first = chunk * kChunk, in_chunk = std::min(kChunk, count - first);
    load_chunk(points + 2 * first, in_chunk, x, y);
    find_in_map(x, y, map.height, map.width, kept[chunk].places);
    sample_map(map, kept[chunk].places, logits);
    sample_mask(mask, x, y, kept[chunk].labels);
    add_losses(logits, kept[chunk].labels, in_chunk, kept[chunk].probabilities, sums);
  }
  // dice = 1 - above / below; its derivative for a probability is every - label * covered
  const double above = 2 * sums.intersection + 1, below = sums.probabilities + sums.labels + 1;
  const real every = static_cast<real>(grad_dice * above / (below * below));
  const real covered = static_cast<real>(grad_dice * 2 / below);
  const real each = static_cast<real>(grad_cross_entropy / static_cast<double>(count));
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t in_chunk = std::min(kChunk, count - chunk * kChunk);
    for (int64_t i = 0; i < in_chunk; i += kLanes) {
      const vector p = load(kept[chunk].probabilities + i), label = load(kept[chunk].labels + i);
      store(gradients + i, each * (p - label) + (every - covered * label) * (p * (1 - p)));
    }
    add_to_map(kept[chunk].places, gradients, in_chunk, map.width, grad_map);
  }
}
