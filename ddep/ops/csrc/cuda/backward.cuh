// The backward kernels.
#pragma once

#include "samples.cuh"

namespace ddep {

// atomicAdd for float4 came with CUDA 12.1, for compute capability 9.0 and above. Without it, each
// lane adds single channels, `kLanes` apart. Either way, the lanes of an instruction cover whole
// sectors.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && CUDART_VERSION >= 12010
constexpr int kAtomicChannels = 4;
__device__ __forceinline__ void add_channels(float* to, const float (&x)[4]) {
  atomicAdd(reinterpret_cast<float4*>(to), make_float4(x[0], x[1], x[2], x[3]));
}
#else
constexpr int kAtomicChannels = 1;
#endif

template <typename real>
__device__ __forceinline__ void add_channels(real* to, const real (&x)[1]) {
  atomicAdd(to, x[0]);
}

template <typename U, typename real>
struct BackwardOutputs {
  // (N, S, M, D), initially zero. It is `real` even for half types, and rounded once at the end: a
  // pixel of a coarse level gets hundreds of summands, and sums of 300 in half are off by two
  // percent.
  real* value;
  U *places, *weights;
  real* attention;  // (N, Q, M, L, P): space for the gradients of the attention, with a softmax
  // (N, Q, M, L, P, 2): space for the gradients of the places before they are rounded to U. Those
  // of the reference points are their sums. Null without reference points, or if U is `real`.
  real* exact_places;
};

// Lanes and channels as in forward_kernel. The lane that has located a sample also turns the
// products of its four pixels with grad_output, summed over the channels, into the gradients of
// place and weight.
// The bound of 6 blocks leaves 80 registers to a thread, as half types need. The bound of 4 blocks
// leaves 128, for other numbers of channels.
template <typename T, typename U, typename real, int kVector, int kLanes, bool kExact>
__global__ void __launch_bounds__(kThreads, kExact ? 6 : 4)
    backward_kernel(const __grid_constant__ Problem<U, real> p, const T* __restrict__ value,
                    const T* __restrict__ grad_output,
                    const __grid_constant__ BackwardOutputs<U, real> out) {
  constexpr int kAdded = kVector % kAtomicChannels == 0 ? kAtomicChannels : 1;
  constexpr int kAdditions = kVector / kAdded;
  __shared__ Corners<uint32_t> offsets[kThreads];
  __shared__ Corners<real> weights[kThreads];  // and, after their use, the products
  const int lane = threadIdx.x % kLanes, group = threadIdx.x - lane;
  const int channels = kExact ? kLanes * kVector : p.channels, stride = p.heads * channels;
  const Unit unit = find_unit<kLanes>(p);
  const int64_t index = unit.index(p), first = index * p.samples;
  const Softmax<real> softmax = find_softmax<kLanes>(p, first, lane);
  const int64_t offset = unit.image * p.tokens * stride + unit.head * channels;
  const T* image = value + offset;
  real* grad_image = out.value + offset;
  const T* gradient = grad_output + index * channels;

  // The channels of the gradient that this lane multiplies, and those that it adds to grad_value.
  // They differ if the lane loads more channels at once than it adds.
  real multiplied[kVector] = {}, added[kAdditions][kAdded] = {};
  const auto channel_added = [&](int block, int i) { return block + (i * kLanes + lane) * kAdded; };
  const auto load_gradient = [&](int block) {
    const int channel = block + lane * kVector;
    if (kExact || channel < channels) load_channels(gradient + channel, multiplied);
#pragma unroll
    for (int i = 0; i < kAdditions; ++i) {
      const int to = channel_added(block, i);
      if (kExact || to < channels) load_channels(gradient + to, added[i]);
    }
  };
  load_gradient(0);

  real weighted = 0;  // this lane's part of the sum of attention times its gradient
  Given<U, real> given = read_sample(p, unit, first, lane);
  for (int begin = 0; begin < p.samples; begin += kLanes) {
    const Sample<real> sample = locate(p, given, softmax, stride / kVector);
    offsets[threadIdx.x] = sample.offsets;
    weights[threadIdx.x] = sample.weights;
    __syncwarp();
    given = read_sample(p, unit, first, begin + kLanes + lane);
    const int count = p.samples - begin < kLanes ? p.samples - begin : kLanes;
    for (int i = group; i < group + count; ++i) {
      const Corners<uint32_t> pixel_offsets = offsets[i];
      const Corners<real> weight = weights[i];
      real products[4] = {};
      for (int block = 0; block < channels; block += kLanes * kVector) {
        if (!kExact) load_gradient(block);
        const int channel = block + lane * kVector;
        const bool active = kExact || channel < channels;
        const Pixels<T, kVector> pixels(image + (active ? channel : 0), pixel_offsets);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          real pixel[kVector];
          pixels.get(k, pixel);
#pragma unroll
          for (int c = 0; c < kVector; ++c) {
            products[k] += active ? pixel[c] * multiplied[c] : real(0);
          }
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          if (pixel_offsets.of[k] == kOutside) continue;
          real* to = grad_image + static_cast<int64_t>(pixel_offsets.of[k]) * kVector;
#pragma unroll
          for (int a = 0; a < kAdditions; ++a) {
            if (!kExact && channel_added(block, a) >= channels) continue;
            real summands[kAdded];
#pragma unroll
            for (int c = 0; c < kAdded; ++c) summands[c] = weight.of[k] * added[a][c];
            add_channels(to + channel_added(block, a), summands);
          }
        }
      }
      __syncwarp();
      sum_four<kLanes>(products, lane, weights[i].of);
    }
    __syncwarp();
    if (!unit.valid || begin + lane >= p.samples) continue;
    const Corners<real> product = weights[threadIdx.x];
    const real x_top = product.of[1] - product.of[0], x_bottom = product.of[3] - product.of[2];
    const real top = product.of[0] + sample.x * x_top;
    const real bottom = product.of[2] + sample.x * x_bottom;
    const real grad_attention = top + sample.y * (bottom - top);
    const real grad_x = x_top + sample.y * (x_bottom - x_top), grad_y = bottom - top;
    const int64_t to = first + begin + lane;
    const real x = sample.attention * grad_x * sample.x_unit;
    const real y = sample.attention * grad_y * sample.y_unit;
    reinterpret_cast<Pair<U>*>(out.places)[to] = {{static_cast<U>(x), static_cast<U>(y)}};
    if constexpr (!std::is_same_v<U, real>) {
      if (softmax.used) reinterpret_cast<Pair<real>*>(out.exact_places)[to] = {{x, y}};
    }
    if (softmax.used) {
      out.attention[to] = grad_attention;
      weighted += sample.attention * grad_attention;
    } else {
      out.weights[to] = static_cast<U>(grad_attention);
    }
  }
  if (!softmax.used) return;
  weighted = sum_lanes<kLanes>(weighted);
  if (!unit.valid) return;
  // Each lane reads what it has written itself.
#pragma unroll 1
  for (int64_t i = first + lane; i < first + p.samples; i += kLanes) {
    const real attention = softmax(static_cast<real>(p.weights[i]));
    out.weights[i] = static_cast<U>(attention * (out.attention[i] - weighted));
  }
}

// grad_reference (N, Q, L, 2): a reference point moves the samples of its query and level in all
// heads. Sums of rounded gradients would be less exact than the type of the reference points.
template <typename U, typename real>
__global__ void __launch_bounds__(kThreads)
    backward_reference_kernel(const __grid_constant__ Problem<U, real> p,
                              const real* __restrict__ grad_places,
                              real* __restrict__ grad_reference) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = index / p.levels.count;
  if (row >= p.images * p.queries) return;
  const int level = static_cast<int>(index - row * p.levels.count);
  const auto* grads = reinterpret_cast<const Pair<real>*>(grad_places) + row * p.heads * p.samples +
                      level * p.points;
  real x = 0, y = 0;
  for (int head = 0; head < p.heads; ++head, grads += p.samples) {
    for (int point = 0; point < p.points; ++point) {
      x += grads[point].of[0];
      y += grads[point].of[1];
    }
  }
  const Level size = p.level_at(level);
  grad_reference[2 * index] = x * static_cast<real>(size.width);
  grad_reference[2 * index + 1] = y * static_cast<real>(size.height);
}

}  // namespace ddep
