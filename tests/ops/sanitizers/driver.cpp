// Runs the CPU kernels over many sizes, in buffers without any slack, and compares them with loops
// over all pixels in double. test_sanitizers.py builds it with sanitizers.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "kernels.h"

namespace {

using ddep::Sizes;

template <typename T>
struct Tensors {
  std::vector<T> value, reference, places, weights, grad_output;
};

template <typename T>
struct Results {
  std::vector<T> output, grad_value, grad_reference, grad_places, grad_weights;
};

double tent(double distance) { return std::max(0.0, 1 - std::abs(distance)); }

// The slope to the right of `distance`.
double slope(double distance) { return distance < -1 || distance >= 1 ? 0 : distance < 0 ? 1 : -1; }

template <typename T>
Results<double> by_definition(const Sizes& s, bool fused, const Tensors<T>& in) {
  Results<double> out;
  const int64_t rows = s.images * s.queries, count = s.levels * s.points;
  out.output.assign(rows * s.heads * s.channels, 0);
  out.grad_value.assign(in.value.size(), 0);
  out.grad_reference.assign(in.reference.size(), 0);
  out.grad_places.assign(in.places.size(), 0);
  out.grad_weights.assign(in.weights.size(), 0);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t head = 0; head < s.heads; ++head) {
      const int64_t first = (row * s.heads + head) * count;
      const int64_t channel = (row * s.heads + head) * s.channels;
      const T* weights = in.weights.data() + first;
      std::vector<double> attention(weights, weights + count);
      if (fused) {
        double sum = 0;
        double largest = -HUGE_VAL;
        for (const double a : attention) largest = std::max(largest, a);
        for (double& a : attention) sum += a = std::exp(a - largest);
        for (double& a : attention) a /= sum;
      }
      double weighted = 0;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t level = i / s.points, at = first + i;
        const int64_t height = s.shapes[2 * level], width = s.shapes[2 * level + 1];
        double x = in.places[2 * at], y = in.places[2 * at + 1];
        if (fused) {
          x += in.reference[2 * (row * s.levels + level)] * double(width);
          y += in.reference[2 * (row * s.levels + level) + 1] * double(height);
        } else {
          x *= double(width), y *= double(height);
        }
        x -= 0.5, y -= 0.5;
        if (!(x >= -1 && x < double(width) && y >= -1 && y < double(height))) continue;
        double grad_x = 0, grad_y = 0;
        for (int64_t r = 0; r < height; ++r) {
          for (int64_t c = 0; c < width; ++c) {
            const int64_t token = row / s.queries * s.tokens + s.starts[level] + r * width + c;
            const double weight = tent(x - double(c)) * tent(y - double(r));
            double dot = 0;
            for (int64_t d = 0; d < s.channels; ++d) {
              const int64_t of_value = (token * s.heads + head) * s.channels + d;
              const double v = in.value[of_value], g = in.grad_output[channel + d];
              out.output[channel + d] += attention[i] * weight * v;
              out.grad_value[of_value] += attention[i] * weight * g;
              dot += v * g;
            }
            out.grad_weights[at] += weight * dot;
            grad_x += attention[i] * slope(x - double(c)) * tent(y - double(r)) * dot;
            grad_y += attention[i] * tent(x - double(c)) * slope(y - double(r)) * dot;
          }
        }
        weighted += attention[i] * out.grad_weights[at];
        out.grad_places[2 * at] = grad_x * (fused ? 1 : double(width));
        out.grad_places[2 * at + 1] = grad_y * (fused ? 1 : double(height));
        if (fused) {
          out.grad_reference[2 * (row * s.levels + level)] += grad_x * double(width);
          out.grad_reference[2 * (row * s.levels + level) + 1] += grad_y * double(height);
        }
      }
      for (int64_t i = 0; fused && i < count; ++i) {
        out.grad_weights[first + i] = attention[i] * (out.grad_weights[first + i] - weighted);
      }
    }
  }
  return out;
}

template <typename T>
Results<T> by_kernels(const ddep::MsDeformAttnKernels<T>& kernels, const Sizes& s, bool fused,
                      const Tensors<T>& in) {
  const T unwritten = std::numeric_limits<T>::quiet_NaN();
  const int64_t rows = s.images * s.queries, half = rows / 2;
  Results<T> out;
  out.output.assign(rows * s.heads * s.channels, unwritten);
  out.grad_value.assign(in.value.size(), unwritten);
  out.grad_reference.assign(in.reference.size(), 0);
  out.grad_places.assign(in.places.size(), unwritten);
  out.grad_weights.assign(in.weights.size(), unwritten);
  const ddep::Sampling<T> sampling = {fused ? in.reference.data() : nullptr, in.places.data(),
                                      in.weights.data(), fused};
  // As two threads would.
  kernels.forward(s, sampling, in.value.data(), out.output.data(), half, rows);
  kernels.forward(s, sampling, in.value.data(), out.output.data(), 0, half);
  std::vector<T> attention(in.weights.size(), unwritten);
  T* to_attention = fused ? attention.data() : nullptr;
  kernels.backward_sampling(s, sampling, in.value.data(), in.grad_output.data(),
                            out.grad_reference.data(), out.grad_places.data(),
                            out.grad_weights.data(), to_attention, half, rows);
  kernels.backward_sampling(s, sampling, in.value.data(), in.grad_output.data(),
                            out.grad_reference.data(), out.grad_places.data(),
                            out.grad_weights.data(), to_attention, 0, half);
  const ddep::Sampling<T> softened = {sampling.reference, sampling.places,
                                      fused ? attention.data() : in.weights.data(), false};
  const int64_t columns = s.images * s.heads * ddep::channel_blocks(s);
  kernels.backward_value(s, softened, in.grad_output.data(), out.grad_value.data(), columns / 2,
                         columns);
  kernels.backward_value(s, softened, in.grad_output.data(), out.grad_value.data(), 0, columns / 2);
  return out;
}

// Every second query has coordinates on borders, at pixel centres, far outside, infinite or NaN.
template <typename T>
Tensors<T> random_tensors(const Sizes& s, bool fused, std::mt19937& generator) {
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform(-0.3, 1.3);
  const auto fill = [&](std::vector<T>& tensor, int64_t size, auto& distribution) {
    tensor.resize(size);
    tensor.shrink_to_fit();
    for (T& element : tensor) element = static_cast<T>(distribution(generator));
  };
  const int64_t rows = s.images * s.queries, count = s.heads * s.levels * s.points;
  Tensors<T> in;
  fill(in.value, s.images * s.tokens * s.heads * s.channels, normal);
  fill(in.reference, fused ? rows * s.levels * 2 : 0, uniform);
  fill(in.places, rows * count * 2, uniform);
  fill(in.weights, rows * count, normal);
  fill(in.grad_output, rows * s.heads * s.channels, normal);
  for (T& place : in.places) place *= fused ? 4 : 1;
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> strange = {nan, inf, -inf, T(1e30), T(-1e30), T(3e9), T(-3e9), T(1e19),
                                  0,   1,   0.5,  -0.5,    1.5,      2.5,    -7,      T(0.3)};
  for (int64_t row = 0; row < rows; row += 2) {
    for (int64_t i = 0; fused && i < s.levels * 2; ++i) in.reference[row * s.levels * 2 + i] = 0;
    for (int64_t i = 0; i < count * 2; ++i) {
      in.places[row * count * 2 + i] = strange[generator() % strange.size()];
    }
  }
  return in;
}

template <typename T>
bool same(const char* name, const std::vector<T>& found, const std::vector<double>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    difference += (found[i] - expected[i]) * (found[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  const double tolerance = sizeof(T) == 4 ? 1e-5 : 1e-13;
  // Also false for NaN.
  if (found.size() == expected.size() && std::sqrt(difference) <= tolerance * std::sqrt(norm)) {
    return true;
  }
  std::fprintf(stderr, "%s: difference %g of %g\n", name, std::sqrt(difference), std::sqrt(norm));
  return false;
}

template <typename T>
bool check(const char* name, const ddep::MsDeformAttnKernels<T>& kernels) {
  const std::vector<std::vector<int64_t>> all_shapes = {
      {5, 7}, {1, 1}, {0, 0}, {3, 4, 1, 9, 0, 5, 2, 2}, {6, 1, 4, 0, 3, 3}};
  std::mt19937 generator(0);
  int64_t checked = 0;
  for (const auto& shapes : all_shapes) {
    Sizes s = {};
    s.levels = static_cast<int64_t>(shapes.size()) / 2;
    std::vector<int64_t> starts;
    for (int64_t level = 0; level < s.levels; ++level) {
      starts.push_back(s.tokens);
      s.tokens += shapes[2 * level] * shapes[2 * level + 1];
    }
    s.shapes = shapes.data(), s.starts = starts.data();
    for (const int64_t channels : {1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 32, 33, 63, 64, 71, 96}) {
      for (const int64_t images_queries_heads_points : {2733, 1114, 2521, 1042, 141, 1310}) {
        s.channels = channels;
        s.images = images_queries_heads_points / 1000;
        s.queries = images_queries_heads_points / 100 % 10;
        s.heads = images_queries_heads_points / 10 % 10;
        s.points = images_queries_heads_points % 10;
        for (const bool fused : {false, true}) {
          const Tensors<T> in = random_tensors<T>(s, fused, generator);
          const Results<double> expected = by_definition(s, fused, in);
          const Results<T> found = by_kernels(kernels, s, fused, in);
          if (!(same("output", found.output, expected.output) &
                same("grad_value", found.grad_value, expected.grad_value) &
                same("grad_reference", found.grad_reference, expected.grad_reference) &
                same("grad_places", found.grad_places, expected.grad_places) &
                same("grad_weights", found.grad_weights, expected.grad_weights))) {
            std::fprintf(stderr, "%s: fused %d, levels %ld, channels %ld, sizes %ld\n", name, fused,
                         long(s.levels), long(channels), long(images_queries_heads_points));
            return false;
          }
          ++checked;
        }
      }
    }
  }
  std::printf("%s: %ld\n", name, long(checked));
  return true;
}

}  // namespace

int main() {
  bool passed = check("default float", ddep::kernels_default_float.ms_deform_attn) &
                check("default double", ddep::kernels_default_double.ms_deform_attn);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    passed &= check("AVX2 float", ddep::kernels_avx2_float.ms_deform_attn) &
              check("AVX2 double", ddep::kernels_avx2_double.ms_deform_attn);
  }
#endif
  return passed ? 0 : 1;
}
