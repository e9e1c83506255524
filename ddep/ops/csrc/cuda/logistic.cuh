// What losses need of a mask logit.
#pragma once

#include <cmath>

namespace ddep {

template <typename real>
struct Logistic {
  real sigmoid, opposite;         // of x and of -x
  real positive, negative, tail;  // max(x, 0), max(-x, 0) and log(1 + e^-|x|)

  __device__ __forceinline__ explicit Logistic(real x) {
    const real z = std::exp(-std::fabs(x)), inverse = 1 / (1 + z);
    sigmoid = (x > 0 ? real(1) : z) * inverse;
    opposite = (x > 0 ? z : real(1)) * inverse;
    positive = x > 0 ? x : real(0);
    negative = x > 0 ? real(0) : -x;
    tail = std::log1p(z);
  }

  // The cross entropy where the label is 1, and where it is 0.
  __device__ __forceinline__ real if_one() const { return negative + tail; }
  __device__ __forceinline__ real if_zero() const { return positive + tail; }
};

// RetinaNet (arXiv 1708.02002), equation 5, with gamma 2.
constexpr float kFocalAlpha = 0.25F;  // weight of the pixels inside a mask; 1 minus it outside

template <typename real>
__device__ __forceinline__ real focal_if_one(const Logistic<real>& x) {
  return real(kFocalAlpha) * x.opposite * x.opposite * x.if_one();
}

template <typename real>
__device__ __forceinline__ real focal_if_zero(const Logistic<real>& x) {
  return real(1 - kFocalAlpha) * x.sigmoid * x.sigmoid * x.if_zero();
}

}  // namespace ddep
