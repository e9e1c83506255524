// The forward kernel.
#pragma once

#include "samples.cuh"

namespace ddep {

// `kLanes` lanes process one head of one query, each `kVector` channels at a time; kExact: that is
// all channels. The lanes locate one sample each, then process these samples together.
// The bound of 8 blocks leaves 64 registers to a thread, enough for any layout.
template <typename T, typename U, typename real, int kVector, int kLanes, bool kExact>
__global__ void __launch_bounds__(kThreads, 8)
    forward_kernel(const __grid_constant__ Problem<U, real> p, const T* __restrict__ value,
                   T* __restrict__ output) {
  __shared__ Corners<uint32_t> offsets[kThreads];
  __shared__ Corners<real> weights[kThreads];
  const int lane = threadIdx.x % kLanes, group = threadIdx.x - lane;
  const int channels = kExact ? kLanes * kVector : p.channels, stride = p.heads * channels;
  const Unit unit = find_unit<kLanes>(p);
  const int64_t index = unit.index(p), first = index * p.samples;
  const Softmax<real> softmax = find_softmax<kLanes>(p, first, lane);
  const T* image = value + unit.image * p.tokens * stride + unit.head * channels;
  // One pass over the samples for each block of channels.
  for (int block = 0; block < channels; block += kLanes * kVector) {
    const int channel = block + lane * kVector;
    const bool active = kExact || channel < channels;
    const T* first_pixel = image + (active ? channel : 0);
    real sums[kVector] = {};
    Given<U, real> given = read_sample(p, unit, first, lane);
    for (int begin = 0; begin < p.samples; begin += kLanes) {
      const Sample<real> sample = locate(p, given, softmax, stride / kVector);
      __syncwarp();
      offsets[threadIdx.x] = sample.offsets;
      weights[threadIdx.x] = sample.weights;
      __syncwarp();
      given = read_sample(p, unit, first, begin + kLanes + lane);
      const int count = p.samples - begin < kLanes ? p.samples - begin : kLanes;
      for (int i = group; i < group + count; ++i) {
        const Pixels<T, kVector> pixels(first_pixel, offsets[i]);
        const Corners<real> weight = weights[i];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          real pixel[kVector];
          pixels.get(k, pixel);
#pragma unroll
          for (int c = 0; c < kVector; ++c) sums[c] += weight.of[k] * pixel[c];
        }
      }
    }
    if (!unit.valid || !active) continue;
    Vector<T, kVector> out;
#pragma unroll
    for (int c = 0; c < kVector; ++c) out.of[c] = static_cast<T>(sums[c]);
    *reinterpret_cast<Vector<T, kVector>*>(output + index * channels + channel) = out;
  }
}

}  // namespace ddep
