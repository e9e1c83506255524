// Bilinear sampling at points with zeros outside (grid_sample with align_corners false).

// The pixels at or before some places along one axis, and the places' distances from them.
struct Axis {
  whole_vector pixel;
  vector fraction;
};

// `at` is a fraction of `size`. 0 is the centre of the zero before the first pixel. Places where
// all is zero, and NaN, become 0. The pixel is subtracted before the product is rounded, if the
// processor can do so: this keeps digits that the place itself has no room for.
DDEP_INLINE Axis find_on_axis(vector at, real size) {
  const vector place = at * size + real(0.5);
  const whole_vector near = (place >= 0) & (place <= size + 1);
  const whole_vector pixel = __builtin_convertvector(near ? place : vector{}, whole_vector);
  const vector fraction = at * size + (real(0.5) - __builtin_convertvector(pixel, vector));
  return {pixel, near ? fraction : vector{}};
}

static void find_in_map(const real* x, const real* y, int64_t height, int64_t width,
                        MapPlaces<real>& places) {
  for (int64_t i = 0; i < kChunk; i += kLanes) {
    const Axis column = find_on_axis(load(x + i), static_cast<real>(width));
    const Axis row = find_on_axis(load(y + i), static_cast<real>(height));
    store(places.pixel + i, row.pixel * static_cast<whole>(bordered(width)) + column.pixel);
    store(places.right + i, column.fraction);
    store(places.down + i, row.fraction);
  }
}

DDEP_INLINE vector interpolate(vector from, vector to, vector fraction) {
  return from + fraction * (to - from);
}

static void sample_map(const MaskMap<real>& map, const MapPlaces<real>& places, real* values) {
  // Loads of single pixels come first: reading a vector back at once would wait for them.
  real top_left[kChunk], top_right[kChunk], bottom_left[kChunk], bottom_right[kChunk];
  const int64_t stride = bordered(map.width);
  for (int64_t i = 0; i < kChunk; ++i) {
    const real* top = map.pixels + places.pixel[i];
    const real* bottom = top + stride;
    top_left[i] = top[0], top_right[i] = top[1];
    bottom_left[i] = bottom[0], bottom_right[i] = bottom[1];
  }
  for (int64_t i = 0; i < kChunk; i += kLanes) {
    const vector right = load(places.right + i);
    const vector top = interpolate(load(top_left + i), load(top_right + i), right);
    const vector bottom = interpolate(load(bottom_left + i), load(bottom_right + i), right);
    store(values + i, interpolate(top, bottom, load(places.down + i)));
  }
}

// The reverse: adds each point's gradient to the four pixels around it.
static void add_to_map(const MapPlaces<real>& places, const real* gradients, int64_t count,
                       int64_t width, real* grad_map) {
  real top_left[kChunk], top_right[kChunk], bottom_left[kChunk], bottom_right[kChunk];
  for (int64_t i = 0; i < count; i += kLanes) {
    const vector gradient = load(gradients + i), down = load(places.down + i);
    const vector right = gradient * load(places.right + i), left = gradient - right;
    store(top_left + i, left - left * down);
    store(top_right + i, right - right * down);
    store(bottom_left + i, left * down);
    store(bottom_right + i, right * down);
  }
  const int64_t stride = bordered(width);
  for (int64_t i = 0; i < count; ++i) {
    real* top = grad_map + places.pixel[i];
    real* bottom = top + stride;
    top[0] += top_left[i], top[1] += top_right[i];
    bottom[0] += bottom_left[i], bottom[1] += bottom_right[i];
  }
}

// The points of a chunk along one axis of a mask without a border: two pixels, both inside, and
// their weights, 0 if the pixel that is meant lies outside.
struct MaskAxis {
  whole before[kChunk], after[kChunk];
  real weight_before[kChunk], weight_after[kChunk];
};

static void find_in_mask(const real* at, int64_t size, int64_t stride, MaskAxis& axis) {
  const whole last = static_cast<whole>(size - 1), step = static_cast<whole>(stride);
  for (int64_t i = 0; i < kChunk; i += kLanes) {
    const Axis found = find_on_axis(load(at + i), static_cast<real>(size));
    const whole_vector after = found.pixel, before = after - 1;  // without the border
    const whole_vector before_inside = (before >= 0) & (before <= last),
                       after_inside = after <= last;
    store(axis.before + i, (before_inside ? before : whole_vector{}) * step);
    store(axis.after + i, (after_inside ? after : whole_vector{}) * step);
    store(axis.weight_before + i, before_inside ? 1 - found.fraction : vector{});
    store(axis.weight_after + i, after_inside ? found.fraction : vector{});
  }
}

static void sample_mask(const TrueMask& mask, const real* x, const real* y, real* values) {
  MaskAxis columns, rows;
  find_in_mask(x, mask.width, 1, columns);
  find_in_mask(y, mask.height, mask.width, rows);
  whole top_left[kChunk], top_right[kChunk], bottom_left[kChunk], bottom_right[kChunk];
  for (int64_t i = 0; i < kChunk; ++i) {
    const uint8_t* top = mask.pixels + rows.before[i];
    const uint8_t* bottom = mask.pixels + rows.after[i];
    top_left[i] = top[columns.before[i]], top_right[i] = top[columns.after[i]];
    bottom_left[i] = bottom[columns.before[i]], bottom_right[i] = bottom[columns.after[i]];
  }
  for (int64_t i = 0; i < kChunk; i += kLanes) {
    const vector left = load(columns.weight_before + i), right = load(columns.weight_after + i);
    const vector top = left * __builtin_convertvector(load(top_left + i), vector) +
                       right * __builtin_convertvector(load(top_right + i), vector);
    const vector bottom = left * __builtin_convertvector(load(bottom_left + i), vector) +
                          right * __builtin_convertvector(load(bottom_right + i), vector);
    store(values + i, load(rows.weight_before + i) * top + load(rows.weight_after + i) * bottom);
  }
}
