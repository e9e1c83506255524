// Focal and dice loss of a predicted and a true mask over all pixels of the latter (MaskFormer,
// arXiv 2107.06278, section 3.3). Included twice, see vectors.h.
//
// The prediction is brought to the true mask's size bilinearly, as interpolate does: it is repeated
// beyond its borders. Its rows are resized first, each once; pixels are interpolated between two of
// them and never stored.

constexpr real kFocalAlpha = real(0.25);  // weight inside the mask; outside, 1 minus this

// Where the pixels of an axis lie in a shorter or longer one.
struct ResizedAxis {
  std::vector<int64_t> before, after;  // the two pixels around, equal at the borders
  std::vector<real> fraction;          // the distance from `before`

  ResizedAxis(int64_t from, int64_t to) : before(to), after(to), fraction(to) {
    const double scale = static_cast<double>(from) / static_cast<double>(to);
    for (int64_t i = 0; i < to; ++i) {
      const double at = std::max(0.0, (static_cast<double>(i) + 0.5) * scale - 0.5);
      before[i] = std::min(static_cast<int64_t>(at), from - 1);
      after[i] = std::min(before[i] + 1, from - 1);
      fraction[i] = static_cast<real>(at - static_cast<double>(before[i]));
    }
  }
};

DDEP_INLINE int64_t padded(int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

// The prediction's rows at the true mask's width, the last two that were needed, and the mask's.
class ResizedRows {
 public:
  ResizedRows(const MaskMap<real>& map, const TrueMask& mask)
      : rows(map.height, mask.height),
        map_(map),
        mask_(mask),
        columns_(map.width, mask.width),
        labels_(padded(mask.width)) {
    // The padding is so surely background that it adds 0 to every sum.
    for (auto& resized : resized_) resized.assign(padded(mask.width), real(-1e4));
  }

  const real* row(int64_t row) {
    std::vector<real>& resized = resized_[row % 2];
    if (held_[row % 2] != row) {
      held_[row % 2] = row;
      const real* from = map_.pixels + (kBefore + row) * bordered(map_.width) + kBefore;
      for (int64_t i = 0; i < mask_.width; ++i) {
        const real left = from[columns_.before[i]], right = from[columns_.after[i]];
        resized[i] = left + columns_.fraction[i] * (right - left);
      }
    }
    return resized.data();
  }

  const real* labels(int64_t row) {
    const uint8_t* from = mask_.pixels + row * mask_.width;
    for (int64_t i = 0; i < mask_.width; ++i) labels_[i] = from[i] != 0;
    return labels_.data();
  }

  // The reverse of resizing a row.
  void add(const real* gradients, int64_t row, real* grad_map) const {
    real* to = grad_map + (kBefore + row) * bordered(map_.width) + kBefore;
    for (int64_t i = 0; i < mask_.width; ++i) {
      const real right = gradients[i] * columns_.fraction[i];
      to[columns_.before[i]] += gradients[i] - right;
      to[columns_.after[i]] += right;
    }
  }

  const ResizedAxis rows;

 private:
  const MaskMap<real>& map_;
  const TrueMask& mask_;
  const ResizedAxis columns_;
  std::vector<real> resized_[2], labels_;
  int64_t held_[2] = {-1, -1};
};

struct DenseSums {
  double focal, intersection, probabilities, labels;

  double above() const { return 2 * intersection + 1; }
  double below() const { return probabilities + labels + 1; }
};

// A logit that is wrong if large: the logit itself outside the mask, and minus it inside.
DDEP_INLINE vector wrong_logit(const real* top, const real* bottom, vector down,
                               whole_vector inside, int64_t i) {
  const vector x = interpolate(load(top + i), load(bottom + i), down);
  return inside ? -x : x;
}

static DenseSums sum_pixels(ResizedRows& resized, const TrueMask& mask) {
  DenseSums sums = {};
  for (int64_t y = 0; y < mask.height; ++y) {
    const real* top = resized.row(resized.rows.before[y]);
    const real* bottom = resized.row(resized.rows.after[y]);
    const real* labels = resized.labels(y);
    const vector down = vector{} + resized.rows.fraction[y];
    vector focal = {}, intersection = {}, probabilities = {}, of_labels = {};
    for (int64_t i = 0; i < mask.width; i += kLanes) {
      const vector label = load(labels + i);
      const whole_vector inside = label > 0;
      const Logistic wrong = logistic(wrong_logit(top, bottom, down, inside, i));
      const vector alpha = inside ? vector{} + kFocalAlpha : vector{} + (1 - kFocalAlpha);
      focal += alpha * wrong.sigmoid * wrong.sigmoid * wrong.softplus;
      intersection += wrong.complement * label;
      probabilities += inside ? wrong.complement : wrong.sigmoid;
      of_labels += label;
    }
    sums.focal += sum_lanes(focal);
    sums.intersection += sum_lanes(intersection);
    sums.probabilities += sum_lanes(probabilities);
    sums.labels += sum_lanes(of_labels);
  }
  return sums;
}

static void dense_mask_losses(const MaskMap<real>& map, const TrueMask& mask, real* focal,
                              real* dice) {
  ResizedRows resized(map, mask);
  const DenseSums sums = sum_pixels(resized, mask);
  *focal = static_cast<real>(sums.focal / static_cast<double>(mask.height * mask.width));
  *dice = static_cast<real>(1 - sums.above() / sums.below());
}

static void dense_mask_losses_backward(const MaskMap<real>& map, const TrueMask& mask,
                                       real grad_focal, real grad_dice, real* grad_map) {
  ResizedRows resized(map, mask);
  const DenseSums sums = sum_pixels(resized, mask);
  // dice = 1 - above / below; its derivative for a probability is every - label * covered
  const double above = sums.above(), below = sums.below();
  const real every = static_cast<real>(grad_dice * above / (below * below));
  const real covered = static_cast<real>(grad_dice * 2 / below);
  const real each = static_cast<real>(grad_focal / static_cast<double>(mask.height * mask.width));
  // Of the resized rows, row r in r % 2; they go to the map when they are complete.
  std::vector<real> gradients[2];
  for (auto& row : gradients) row.assign(padded(mask.width), real(0));
  int64_t held[2] = {-1, -1};
  for (int64_t y = 0; y < mask.height; ++y) {
    const int64_t rows[2] = {resized.rows.before[y], resized.rows.after[y]};
    for (const int64_t row : rows) {
      if (held[row % 2] == row) continue;
      if (held[row % 2] >= 0) resized.add(gradients[row % 2].data(), held[row % 2], grad_map);
      std::fill(gradients[row % 2].begin(), gradients[row % 2].end(), real(0));
      held[row % 2] = row;
    }
    const real* top = resized.row(rows[0]);
    const real* bottom = resized.row(rows[1]);
    real* to_top = gradients[rows[0] % 2].data();
    real* to_bottom = gradients[rows[1] % 2].data();
    const real* labels = resized.labels(y);
    const vector down = vector{} + resized.rows.fraction[y];
    for (int64_t i = 0; i < mask.width; i += kLanes) {
      const vector label = load(labels + i);
      const whole_vector inside = label > 0;
      const Logistic wrong = logistic(wrong_logit(top, bottom, down, inside, i));
      const vector q = wrong.sigmoid, alpha = inside ? vector{} + -kFocalAlpha * each
                                                     : vector{} + (1 - kFocalAlpha) * each;
      const vector focal = alpha * q * q * (2 * wrong.complement * wrong.softplus + q);
      const vector gradient = focal + (every - covered * label) * (q * wrong.complement);
      const vector of_bottom = gradient * down;
      store(to_top + i, load(to_top + i) + (gradient - of_bottom));
      store(to_bottom + i, load(to_bottom + i) + of_bottom);  // of one row at the border
    }
  }
  for (const int64_t row : {std::min(held[0], held[1]), std::max(held[0], held[1])}) {
    if (row >= 0) resized.add(gradients[row % 2].data(), row, grad_map);
  }
}
