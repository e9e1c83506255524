// Multi-scale deformable attention on the CPU (Deformable DETR, arXiv 2010.04159, section 4.1).
// Included twice, see vectors.h.

constexpr int64_t kVectors = kBlock / kLanes;  // of a block of channels

// ---- where to sample ----

// The samples of one row (image, query) at consecutive heads: a table per property, padded to whole
// vectors. Corners go from top left to bottom right.
struct Points {
  // of the level
  std::vector<real> width, height;
  std::vector<whole> columns, rows, start;
  // as given: places are scale times size plus offset, in pixels; attention is after the softmax
  std::vector<real> x_scale, y_scale, x_offset, y_offset, attention;
  // as found: the corners' tokens, -1 outside the level, and the position between them
  std::vector<whole> token[4];
  std::vector<real> x_fraction, y_fraction;

  Points(const Sizes& sizes, int64_t heads) {
    const int64_t count = sizes.levels * sizes.points * heads;
    const int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
    for (auto* table : {&width, &height, &x_scale, &y_scale, &x_offset, &y_offset, &attention,
                        &x_fraction, &y_fraction}) {
      table->resize(padded);
    }
    for (auto* table : {&columns, &rows, &start, &token[0], &token[1], &token[2], &token[3]}) {
      table->resize(padded);
    }
    for (int64_t i = 0; i < count; ++i) {
      const int64_t level = i / sizes.points % sizes.levels;
      rows[i] = static_cast<whole>(sizes.shapes[2 * level]);
      columns[i] = static_cast<whole>(sizes.shapes[2 * level + 1]);
      start[i] = static_cast<whole>(sizes.starts[level]);
      height[i] = static_cast<real>(rows[i]), width[i] = static_cast<real>(columns[i]);
    }
  }
};

// In place, over `count` logits of each head. The table's size is a multiple of kLanes.
static void softmax(std::vector<real>& logits, int64_t count, int64_t heads) {
  for (int64_t head = 0; head < heads; ++head) {
    real* of_head = logits.data() + head * count;
    real largest = of_head[0];
    for (int64_t i = 1; i < count; ++i) largest = of_head[i] > largest ? of_head[i] : largest;
    for (int64_t i = 0; i < count; ++i) of_head[i] -= largest;
  }
  for (size_t i = 0; i < logits.size(); i += kLanes)
    store(&logits[i], exponential(load(&logits[i])));
  for (int64_t head = 0; head < heads; ++head) {
    real* of_head = logits.data() + head * count;
    real sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += of_head[i];
    for (int64_t i = 0; i < count; ++i) of_head[i] /= sum;
  }
}

// The pixels at or before some places along one axis, and the places' distances from them.
struct Positions {
  whole_vector pixel, near;  // near: a pixel of the level may contribute; otherwise all is 0
  vector fraction;
};

// Values sit at pixel centres, and 0 is half a pixel before the first (align_corners false). The
// pixel is subtracted before the product of scale and size is rounded, if the processor can do so.
// This keeps digits that the place itself has no room for, and decides on which side of a pixel the
// place lies.
DDEP_INLINE Positions find_positions(vector scale, vector size, vector offset) {
  vector place = scale * size - real(0.5) + offset;
  // Rounding may have moved the place onto the border of this range. False for NaN.
  const whole_vector near = (place >= real(-1)) & (place <= size);
  place = near ? place : vector{};
  // Rounds towards zero, then down by one if that rounded up.
  whole_vector pixel = __builtin_convertvector(place, whole_vector);
  pixel += place < __builtin_convertvector(pixel, vector);  // true is -1
  const vector half_after = __builtin_convertvector(pixel, vector) + real(0.5);
  const vector fraction = scale * size - half_after + offset;
  const vector again = scale * size - (half_after - 1) + offset;
  const whole_vector before = near & (fraction < 0);
  return {pixel + before, near, near ? (before ? again : fraction) : vector{}};
}

static void find_corners(Points& points) {
  for (size_t i = 0; i < points.width.size(); i += kLanes) {
    const Positions x =
        find_positions(load(&points.x_scale[i]), load(&points.width[i]), load(&points.x_offset[i]));
    const Positions y = find_positions(load(&points.y_scale[i]), load(&points.height[i]),
                                       load(&points.y_offset[i]));
    store(&points.x_fraction[i], x.fraction);
    store(&points.y_fraction[i], y.fraction);
    const whole_vector left = x.pixel, top = y.pixel, near = x.near & y.near;
    const whole_vector columns = load(&points.columns[i]), rows = load(&points.rows[i]);
    const whole_vector token = load(&points.start[i]) + top * columns + left;
    const whole_vector has_left = near & (left >= 0) & (left < columns);
    const whole_vector has_right = near & (left >= -1) & (left + 1 < columns);
    const whole_vector has_top = (top >= 0) & (top < rows);
    const whole_vector has_bottom = (top >= -1) & (top + 1 < rows);
    const whole_vector outside = whole_vector{} - 1;
    store(&points.token[0][i], has_left & has_top ? token : outside);
    store(&points.token[1][i], has_right & has_top ? token + 1 : outside);
    store(&points.token[2][i], has_left & has_bottom ? token + columns : outside);
    store(&points.token[3][i], has_right & has_bottom ? token + columns + 1 : outside);
  }
}

// Fills `points` with those of heads [head_begin, head_end).
static void load_points(const Sizes& sizes, const Sampling<real>& sampling, int64_t row,
                        int64_t head_begin, int64_t head_end, Points& points) {
  const int64_t count = sizes.levels * sizes.points, heads = head_end - head_begin;
  const int64_t first = (row * sizes.heads + head_begin) * count;
  const real* place = sampling.places + 2 * first;
  real* x = sampling.reference ? points.x_offset.data() : points.x_scale.data();
  real* y = sampling.reference ? points.y_offset.data() : points.y_scale.data();
  for (int64_t i = 0; i < heads * count; ++i) {
    x[i] = place[2 * i];
    y[i] = place[2 * i + 1];
  }
  std::copy_n(sampling.weights + first, heads * count, points.attention.begin());
  std::fill(points.attention.begin() + heads * count, points.attention.end(), real(0));
  if (sampling.reference) {
    const real* reference = sampling.reference + 2 * row * sizes.levels;
    for (int64_t head = 0, i = 0; head < heads; ++head) {
      for (int64_t level = 0; level < sizes.levels; ++level) {
        for (int64_t point = 0; point < sizes.points; ++point, ++i) {
          points.x_scale[i] = reference[2 * level];
          points.y_scale[i] = reference[2 * level + 1];
        }
      }
    }
  }
  if (sampling.logits && count > 0) softmax(points.attention, count, heads);
  find_corners(points);
}

// ---- forward ----

DDEP_INLINE const real* pixel_at(const real* source, whole token, int64_t stride,
                                 const real* zeros) {
  return token < 0 ? zeros : source + token * stride;
}

struct Weights {
  real of[4];
};

DDEP_INLINE Weights weights_at(const Points& points, int64_t i) {
  const real attention = points.attention[i], fx = points.x_fraction[i];
  const real bottom = attention * points.y_fraction[i], top = attention - bottom;
  return {{top - top * fx, top * fx, bottom - bottom * fx, bottom * fx}};
}

// Sums `vectors` vectors of channels over `count` samples, starting at `first`. If `vectors` is a
// constant, the sums stay in registers.
DDEP_INLINE void gather(const Points& points, int64_t first, int64_t count, const real* source,
                        int64_t stride, const real* zeros, real* target, int64_t vectors) {
  vector sums[kVectors] = {};
  for (int64_t i = first; i < first + count; ++i) {
    const Weights weights = weights_at(points, i);
    for (int k = 0; k < 4; ++k) {
      const real* pixel = pixel_at(source, points.token[k][i], stride, zeros);
      for (int64_t v = 0; v < vectors; ++v) sums[v] += load(pixel + v * kLanes) * weights.of[k];
    }
  }
  for (int64_t v = 0; v < vectors; ++v) store(target + v * kLanes, sums[v]);
}

// The same for fewer channels than a vector has.
DDEP_INLINE void gather_some(const Points& points, int64_t first, int64_t count, const real* source,
                             int64_t stride, const real* zeros, real* target, int64_t channels) {
  vector sum = {};
  for (int64_t i = first; i < first + count; ++i) {
    const Weights weights = weights_at(points, i);
    for (int k = 0; k < 4; ++k) {
      const real* pixel = pixel_at(source, points.token[k][i], stride, zeros);
      sum += load_some(pixel, channels) * weights.of[k];
    }
  }
  store_some(target, sum, channels);
}

static void forward(const Sizes& sizes, const Sampling<real>& sampling, const real* value,
                    real* output, int64_t row_begin, int64_t row_end) {
  Points points(sizes, sizes.heads);
  const int64_t count = sizes.levels * sizes.points, stride = sizes.heads * sizes.channels;
  const std::vector<real> none(kBlock);
  const real* zeros = none.data();
  for (int64_t row = row_begin; row < row_end; ++row) {
    load_points(sizes, sampling, row, 0, sizes.heads, points);
    const real* image = value + row / sizes.queries * sizes.tokens * stride;
    for (int64_t head = 0; head < sizes.heads; ++head) {
      const int64_t first = head * count;
      const real* source = image + head * sizes.channels;
      real* target = output + (row * sizes.heads + head) * sizes.channels;
      int64_t c = 0;
      for (; c + kBlock <= sizes.channels; c += kBlock) {
        gather(points, first, count, source + c, stride, zeros, target + c, kVectors);
      }
      for (; c + kLanes <= sizes.channels; c += kLanes) {
        gather(points, first, count, source + c, stride, zeros, target + c, 1);
      }
      if (c < sizes.channels) {
        gather_some(points, first, count, source + c, stride, zeros, target + c,
                    sizes.channels - c);
      }
    }
  }
}

// ---- backward: gradients of the sampling ----

// A sample's gradients: of its weight, and of x and y per pixel.
struct SampleGradient {
  real weight, x, y;
};

// Products of the gradient with the four pixels are combined lane by lane before the lanes are
// summed, which takes three sums instead of four.
DDEP_INLINE SampleGradient multiply(const real* const pixel[4], const real* gradient, real fx,
                                    real fy, int64_t channels) {
  vector dot[4] = {};
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) {
    const vector g = load(gradient + c);
    for (int k = 0; k < 4; ++k) dot[k] += load(pixel[k] + c) * g;
  }
  if (c < channels) {
    const vector g = load_some(gradient + c, channels - c);
    for (int k = 0; k < 4; ++k) dot[k] += load_some(pixel[k] + c, channels - c) * g;
  }
  const vector x_top = dot[1] - dot[0], x_bottom = dot[3] - dot[2];
  const vector top = dot[0] + fx * x_top, bottom = dot[2] + fx * x_bottom;
  return {sum_lanes(top + fy * (bottom - top)), sum_lanes(x_top + fy * (x_bottom - x_top)),
          sum_lanes(bottom - top)};
}

static void backward_sampling(const Sizes& sizes, const Sampling<real>& sampling, const real* value,
                              const real* grad_output, real* grad_reference, real* grad_places,
                              real* grad_weights, real* attention_out, int64_t row_begin,
                              int64_t row_end) {
  Points points(sizes, sizes.heads);
  const int64_t count = sizes.levels * sizes.points, stride = sizes.heads * sizes.channels;
  const std::vector<real> none(sizes.channels);
  for (int64_t row = row_begin; row < row_end; ++row) {
    load_points(sizes, sampling, row, 0, sizes.heads, points);
    if (attention_out) {
      std::copy_n(points.attention.begin(), sizes.heads * count,
                  attention_out + row * sizes.heads * count);
    }
    const real* image = value + row / sizes.queries * sizes.tokens * stride;
    real* grad_place = grad_places + 2 * row * sizes.heads * count;
    real* grad_weight = grad_weights + row * sizes.heads * count;
    for (int64_t head = 0; head < sizes.heads; ++head) {
      const real* source = image + head * sizes.channels;
      const real* gradient = grad_output + (row * sizes.heads + head) * sizes.channels;
      real weighted = 0;  // sum of attention times its gradient, for the softmax
      for (int64_t i = head * count; i < (head + 1) * count; ++i) {
        const real* pixel[4];
        for (int k = 0; k < 4; ++k) {
          pixel[k] = pixel_at(source, points.token[k][i], stride, none.data());
        }
        const real fx = points.x_fraction[i], fy = points.y_fraction[i];
        const SampleGradient sample = sizes.channels == kBlock
                                          ? multiply(pixel, gradient, fx, fy, kBlock)
                                          : multiply(pixel, gradient, fx, fy, sizes.channels);
        const real attention = points.attention[i];
        grad_weight[i] = sample.weight;
        // Offsets are in pixels, locations in fractions of the level.
        grad_place[2 * i] = attention * sample.x * (sampling.reference ? 1 : points.width[i]);
        grad_place[2 * i + 1] = attention * sample.y * (sampling.reference ? 1 : points.height[i]);
        weighted += attention * sample.weight;
      }
      if (!sampling.reference) continue;
      for (int64_t level = 0, i = head * count; level < sizes.levels; ++level) {
        real x = 0, y = 0;
        for (int64_t point = 0; point < sizes.points; ++point, ++i) {
          grad_weight[i] = points.attention[i] * (grad_weight[i] - weighted);
          x += grad_place[2 * i], y += grad_place[2 * i + 1];
        }
        real* grad = grad_reference + 2 * (row * sizes.levels + level);
        grad[0] += x * static_cast<real>(sizes.shapes[2 * level + 1]);
        grad[1] += y * static_cast<real>(sizes.shapes[2 * level]);
      }
    }
  }
}

// ---- backward: gradients of the values ----

DDEP_INLINE void scatter(real* sums, const real* gradient, real weight, int64_t channels) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) {
    store(sums + c, load(sums + c) + load(gradient + c) * weight);
  }
  for (; c < channels; ++c) sums[c] += gradient[c] * weight;
}

// Sums into a small buffer before it writes to grad_value. In grad_value, neighbouring tokens are
// all heads apart, a power of two that would make them compete for a few lines of the cache.
static void backward_value(const Sizes& sizes, const Sampling<real>& sampling,
                           const real* grad_output, real* grad_value, int64_t column_begin,
                           int64_t column_end) {
  Points points(sizes, 1);
  std::vector<real> sums((sizes.tokens + 1) * kBlock);  // the last is for pixels outside
  const int64_t count = sizes.levels * sizes.points, blocks = channel_blocks(sizes);
  for (int64_t column = column_begin; column < column_end; ++column) {
    const int64_t image = column / (sizes.heads * blocks), head = column / blocks % sizes.heads;
    const int64_t begin = column % blocks * kBlock;
    const int64_t channels = std::min(kBlock, sizes.channels - begin);
    std::fill(sums.begin(), sums.end(), real(0));
    for (int64_t query = 0; query < sizes.queries; ++query) {
      const int64_t row = image * sizes.queries + query;
      const real* gradient = grad_output + (row * sizes.heads + head) * sizes.channels + begin;
      load_points(sizes, sampling, row, head, head + 1, points);
      for (int64_t i = 0; i < count; ++i) {
        const Weights weights = weights_at(points, i);
        for (int k = 0; k < 4; ++k) {
          const int64_t token = points.token[k][i] < 0 ? sizes.tokens : points.token[k][i];
          real* sum = sums.data() + token * kBlock;
          if (channels == kBlock) {
            scatter(sum, gradient, weights.of[k], kBlock);
          } else {
            scatter(sum, gradient, weights.of[k], channels);
          }
        }
      }
    }
    for (int64_t token = 0; token < sizes.tokens; ++token) {
      const real* sum = sums.data() + token * kBlock;
      real* target = grad_value + begin +
                     ((image * sizes.tokens + token) * sizes.heads + head) * sizes.channels;
      std::copy(sum, sum + channels, target);
    }
  }
}
