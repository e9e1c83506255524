// Uniform points from Philox4x32-10; ../random_streams.h tells what its numbers are.
#pragma once

#include <cstdint>

namespace ddep {

// A seed on the device is read there, so that the host does not wait for it.
struct Seed {
  const int64_t* on_device;  // or null: then `value`
  int64_t value;

  __device__ __forceinline__ uint64_t get() const {
    return static_cast<uint64_t>(on_device == nullptr ? value : *on_device);
  }
};

struct DrawnPoint {
  float x, y;
};

struct TwoPoints {
  DrawnPoint of[2];
};

__device__ __forceinline__ float uniform_number(uint32_t word) {
  return static_cast<float>(word >> 8) * (1.0F / (1 << 24));
}

// The points 2 j and 2 j + 1 of a row.
__device__ __forceinline__ TwoPoints draw_two(uint64_t seed, uint32_t stream, uint32_t row,
                                              uint32_t j) {
  uint32_t key_0 = static_cast<uint32_t>(seed), key_1 = static_cast<uint32_t>(seed >> 32);
  uint32_t word_0 = j, word_1 = row, word_2 = stream, word_3 = 0;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t product_0 = uint64_t{0xD2511F53} * word_0;
    const uint64_t product_1 = uint64_t{0xCD9E8D57} * word_2;
    word_0 = static_cast<uint32_t>(product_1 >> 32) ^ word_1 ^ key_0;
    word_2 = static_cast<uint32_t>(product_0 >> 32) ^ word_3 ^ key_1;
    word_1 = static_cast<uint32_t>(product_1);
    word_3 = static_cast<uint32_t>(product_0);
    key_0 += 0x9E3779B9;
    key_1 += 0xBB67AE85;
  }
  return {{{uniform_number(word_0), uniform_number(word_1)},
           {uniform_number(word_2), uniform_number(word_3)}}};
}

}  // namespace ddep
