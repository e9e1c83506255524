// Philox4x32-10 on vectors; ../random_streams.h tells what its numbers are.

typedef uint64_t counters __attribute__((vector_size(kVectorBytes)));  // a 32-bit word per lane
typedef uint32_t draws __attribute__((vector_size(kVectorBytes)));
typedef int32_t signed_draws __attribute__((vector_size(kVectorBytes)));
typedef float uniforms __attribute__((vector_size(kVectorBytes)));
typedef float unaligned_uniforms
    __attribute__((vector_size(kVectorBytes), aligned(sizeof(float)), may_alias));

constexpr int64_t kCounters = kVectorBytes / sizeof(uint64_t);
constexpr int64_t kGroups = 4;  // of counters that are computed side by side
constexpr int64_t kDrawn = 2 * kCounters * kGroups;

// The product of the lower halves of each lane.
DDEP_INLINE counters multiply(counters a, counters b) {
#if defined(__x86_64__) && DDEP_VECTOR_BYTES == 32
  return reinterpret_cast<counters>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__x86_64__)
  return reinterpret_cast<counters>(
      _mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
  return (a & 0xffffffff) * (b & 0xffffffff);
#endif
}

// Joins the words of even and of odd points and turns them into numbers in [0, 1).
DDEP_INLINE void store_uniform(float* to, counters even, counters odd) {
  const draws words = reinterpret_cast<draws>((even & 0xffffffff) | (odd << 32));
  const signed_draws upper = reinterpret_cast<signed_draws>(words >> 8);
  *reinterpret_cast<unaligned_uniforms*>(to) =
      __builtin_convertvector(upper, uniforms) * (1.0F / (1 << 24));
}

// The points [first, first + kDrawn) of a row; `first` is even.
static void draw(RandomRow random, uint32_t stream, int64_t first, float* x, float* y) {
  uint32_t key_0 = static_cast<uint32_t>(random.seed);
  uint32_t key_1 = static_cast<uint32_t>(random.seed >> 32);
  counters lanes = {}, word_0[kGroups], word_1[kGroups], word_2[kGroups], word_3[kGroups];
  for (int64_t lane = 0; lane < kCounters; ++lane) lanes[lane] = static_cast<uint64_t>(lane);
  for (int64_t group = 0; group < kGroups; ++group) {
    word_0[group] = lanes + static_cast<uint64_t>(first / 2 + group * kCounters);
    word_1[group] = counters{} + random.row;
    word_2[group] = counters{} + stream;
    word_3[group] = counters{};
  }
  for (int round = 0; round < 10; ++round) {
    for (int64_t group = 0; group < kGroups; ++group) {
      // Upper halves of lanes may hold anything: neither products nor results depend on them.
      const counters product_0 = multiply(word_0[group], counters{} + 0xD2511F53);
      const counters product_1 = multiply(word_2[group], counters{} + 0xCD9E8D57);
      word_0[group] = (product_1 >> 32) ^ word_1[group] ^ key_0;
      word_2[group] = (product_0 >> 32) ^ word_3[group] ^ key_1;
      word_1[group] = product_1;
      word_3[group] = product_0;
    }
    key_0 += 0x9E3779B9;
    key_1 += 0xBB67AE85;
  }
  for (int64_t group = 0; group < kGroups; ++group) {
    store_uniform(x + 2 * kCounters * group, word_0[group], word_2[group]);
    store_uniform(y + 2 * kCounters * group, word_1[group], word_3[group]);
  }
}
