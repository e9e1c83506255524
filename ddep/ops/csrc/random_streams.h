// Random numbers from a counter-based generator, the same on all devices.
//
// Philox4x32-10 (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3"): the key is
// the seed's lower and upper 32 bits. The counter (j, row, stream, 0) gives four words: x and y of
// the points 2 j and 2 j + 1 of a row. A word's upper 24 bits times 2^-24 are a number in [0, 1).
// So seed, stream, row and point decide a number; threads, devices and the batch's size do not.
#pragma once

#include <cstdint>

namespace ddep {

constexpr uint32_t kUniformStream = 0;    // uniform_points
constexpr uint32_t kCandidateStream = 1;  // uncertain_points: its candidates
constexpr uint32_t kRestStream = 2;       // uncertain_points: its uniform points

}  // namespace ddep
