// Vectors of the instruction set that a file is compiled for, and arithmetic on them.
//
// kernels_of_set.h includes this twice: `real` is float and `whole` int32_t, or double and int64_t.
// A pragma may have raised the instruction set. GCC does not apply it to templates and lambdas, so
// neither this file nor the kernels have any.

#define DDEP_INLINE static inline __attribute__((always_inline))

constexpr int64_t kLanes = kVectorBytes / sizeof(real);  // of a vector
typedef real vector __attribute__((vector_size(kVectorBytes)));
typedef whole whole_vector __attribute__((vector_size(kVectorBytes)));
typedef real unaligned_vector
    __attribute__((vector_size(kVectorBytes), aligned(sizeof(real)), may_alias));
typedef whole unaligned_whole_vector
    __attribute__((vector_size(kVectorBytes), aligned(sizeof(real)), may_alias));

DDEP_INLINE vector load(const real* from) {
  return *reinterpret_cast<const unaligned_vector*>(from);
}

DDEP_INLINE whole_vector load(const whole* from) {
  return *reinterpret_cast<const unaligned_whole_vector*>(from);
}

DDEP_INLINE void store(real* to, vector v) { *reinterpret_cast<unaligned_vector*>(to) = v; }

DDEP_INLINE void store(whole* to, whole_vector v) {
  *reinterpret_cast<unaligned_whole_vector*>(to) = v;
}

// Loads the first `count` lanes; the others are 0.
DDEP_INLINE vector load_some(const real* from, int64_t count) {
  real lanes[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = from[i];
  return load(lanes);
}

DDEP_INLINE void store_some(real* to, vector v, int64_t count) {
  real lanes[kLanes];
  store(lanes, v);
  for (int64_t i = 0; i < count; ++i) to[i] = lanes[i];
}

DDEP_INLINE real sum_lanes(vector v) {
  real lanes[kLanes];
  store(lanes, v);
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

// e^x for x <= 0, within 2 units in the last place: e^x = 2^n e^r with |r| <= ln(2) / 2, and e^r
// from its series. NaN stays NaN.
DDEP_INLINE vector exponential(vector x) {
  constexpr bool is_float = sizeof(real) == 4;
  constexpr int mantissa_bits = is_float ? 23 : 52, bias = is_float ? 127 : 1023;
  constexpr int terms = is_float ? 7 : 13;        // the next term is below the last place
  constexpr real lowest = is_float ? -87 : -708;  // below, 2^n is not a normal number: returns 0
  // ln(2) in two parts, the first short enough that n times it is exact
  constexpr real ln2_high = is_float ? 0.693359375 : 6.93145751953125e-1;
  constexpr real ln2_low = is_float ? -2.12194440054690583e-4 : 1.42860682030941723212e-6;
  const whole_vector tiny = x < lowest;
  x = tiny ? vector{} + lowest : x;
  const whole_vector n =
      __builtin_convertvector(x * real(1.44269504088896341) - real(0.5), whole_vector);
  const vector power = __builtin_convertvector(n, vector);
  const vector r = x - power * ln2_high - power * ln2_low;
  vector sum = vector{} + 1;
  for (int k = terms; k > 0; --k) sum = r * (real(1) / real(k)) * sum + 1;
  const whole_vector scale = (n + bias) << mantissa_bits;
  return tiny ? vector{} : sum * reinterpret_cast<vector>(scale);
}

// log(1 + z) for 0 <= z <= 1, within 2 units in the last place: 2 atanh(s) with s = z / (2 + z), at
// most 1/3, from its series. NaN stays NaN.
DDEP_INLINE vector log1p(vector z) {
  constexpr int terms = sizeof(real) == 4 ? 7 : 15;  // the next term is below the last place
  const vector s = z / (z + 2), square = s * s;
  vector sum = vector{} + real(2) / real(2 * terms - 1);
  for (int k = terms - 2; k >= 0; --k) sum = sum * square + real(2) / real(2 * k + 1);
  return s * sum;
}

// max(x, 0); 0 for NaN.
DDEP_INLINE vector positive_part(vector x) { return x > 0 ? x : vector{}; }

// What binary cross entropy and its gradient need of a logit; all is NaN for NaN.
struct Logistic {
  vector sigmoid;     // 1 / (1 + e^-x)
  vector complement;  // 1 - sigmoid, precise where that is small
  vector softplus;    // log(1 + e^x)
  vector tail;        // log(1 + e^-|x|), the part of softplus beyond max(x, 0)
};

DDEP_INLINE Logistic logistic(vector x) {
  const whole_vector positive = x > 0;
  const vector e = exponential(positive ? -x : x), tail = log1p(e);
  const vector larger = 1 / (e + 1), smaller = e * larger;
  return {positive ? larger : smaller, positive ? smaller : larger, positive_part(x) + tail, tail};
}
