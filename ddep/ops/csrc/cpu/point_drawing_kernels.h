// Drawing of points, uniformly and where a prediction is uncertain (PointRend, arXiv 1912.08193,
// section 3.1). Included twice, see vectors.h.

using key = std::make_unsigned_t<whole>;
typedef key keys __attribute__((vector_size(kVectorBytes)));
typedef key unaligned_keys
    __attribute__((vector_size(kVectorBytes), aligned(sizeof(key)), may_alias));

static void uniform_points(RandomRow random, uint32_t stream, int64_t count, float* points) {
  float x[kDrawn], y[kDrawn];
  for (int64_t first = 0; first < count; first += kDrawn) {
    draw(random, stream, first, x, y);
    const int64_t drawn = std::min(kDrawn, count - first);
    for (int64_t i = 0; i < drawn; ++i) {
      points[2 * (first + i)] = x[i], points[2 * (first + i) + 1] = y[i];
    }
  }
}

// ---- selection ----

constexpr int kKeyBits = 8 * sizeof(key) - 1;  // without the sign
constexpr int kDigitBits = 11;
constexpr int64_t kDigits = int64_t{1} << kDigitBits;

// The bits of |x| order as numbers do. NaN counts as 0.
DDEP_INLINE void store_keys(key* to, vector x) {
  const keys magnitude = reinterpret_cast<keys>(x) & (~key{0} >> 1);
  *reinterpret_cast<unaligned_keys*>(to) = x == x ? magnitude : keys{};
}

// The `count` smallest keys are those below `key` and the first `equal` ones that equal it.
struct Threshold {
  key at;
  int64_t equal;
};

// Finds the digits from the highest to the lowest; `some` receives the keys whose digits so far are
// the threshold's. 0 < count <= size.
static Threshold find_threshold(const key* all, int64_t size, int64_t count, key* some) {
  constexpr int64_t ways = 4;  // of counting, as adding twice to one number at once takes long
  uint32_t counts[ways][kDigits];
  key at = 0;
  for (int shift = kKeyBits, bits = 0; shift > 0;) {
    bits = std::min(kDigitBits, shift);
    shift -= bits;
    const key digits = (key{1} << bits) - 1;
    std::fill(&counts[0][0], &counts[0][0] + ways * kDigits, 0);
    for (int64_t i = 0; i < size; ++i) ++counts[i % ways][all[i] >> shift & digits];
    key digit = 0;
    for (;; ++digit) {
      int64_t equal = 0;
      for (int64_t way = 0; way < ways; ++way) equal += counts[way][digit];
      if (count <= equal) break;
      count -= equal;
    }
    at |= digit << shift;
    int64_t kept = 0;
    for (int64_t i = 0; i < size; ++i) {
      const key candidate = all[i];
      some[kept] = candidate;  // in place from the second digit on
      kept += (candidate >> shift & digits) == digit;
    }
    all = some, size = kept;
  }
  return {at, count};
}

static void uncertain_points(const MaskMap<real>& map, RandomRow random, int64_t num_points,
                             int64_t num_candidates, int64_t num_uncertain,
                             DrawingBuffers<real>& buffers, float* points) {
  if (num_uncertain > 0) {
    const int64_t padded = (num_candidates + kChunk - 1) / kChunk * kChunk;
    buffers.x.resize(padded), buffers.y.resize(padded);
    buffers.keys.resize(padded), buffers.some_keys.resize(padded);
    real x[kChunk], y[kChunk], logits[kChunk];
    MapPlaces<real> places;
    for (int64_t first = 0; first < num_candidates; first += kChunk) {
      float* drawn_x = buffers.x.data() + first;
      float* drawn_y = buffers.y.data() + first;
      for (int64_t i = 0; i < kChunk; i += kDrawn) {
        draw(random, kCandidateStream, first + i, drawn_x + i, drawn_y + i);
      }
      for (int64_t i = 0; i < kChunk; ++i) x[i] = drawn_x[i], y[i] = drawn_y[i];
      find_in_map(x, y, map.height, map.width, places);
      sample_map(map, places, logits);
      for (int64_t i = 0; i < kChunk; i += kLanes) {
        store_keys(buffers.keys.data() + first + i, load(logits + i));
      }
    }
    const Threshold threshold = find_threshold(buffers.keys.data(), num_candidates, num_uncertain,
                                               buffers.some_keys.data());
    int64_t equal = threshold.equal;
    for (int64_t i = 0, kept = 0; kept < num_uncertain; ++i) {
      const key candidate = buffers.keys[i];
      points[2 * kept] = buffers.x[i], points[2 * kept + 1] = buffers.y[i];
      const bool equals = candidate == threshold.at;
      kept += (candidate < threshold.at) | (equals & (equal > 0));
      equal -= equals;
    }
  }
  uniform_points(random, kRestStream, num_points - num_uncertain, points + 2 * num_uncertain);
}
