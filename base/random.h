#pragma once
// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011). A value depends on (key, counter) only, never on the rank or on what was
// drawn before.

#include <array>
#include <cstdint>
#include <string_view>

namespace cartesian {

/// A 64-bit key from a seed and the name of what is drawn (a tensor, a purpose). Stable across
/// machines and versions.
std::uint64_t random_key(std::uint64_t seed, std::string_view purpose);

/// Four 32-bit words for (key, counter).
std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_low,
                                    std::uint64_t counter_high = 0);

/// 64 uniform bits number `index` of the stream `key`.
std::uint64_t random_bits(std::uint64_t key, std::uint64_t index);
/// Uniform in [0, 1), number `index` of the stream `key`.
double random_uniform(std::uint64_t key, std::uint64_t index);
/// Standard normal, number `index` of the stream `key` (Box-Muller).
double random_normal(std::uint64_t key, std::uint64_t index);

/// A pseudo-random permutation of [0, size): where `index` goes (a Feistel network with cycle
/// walking), without a table. REQUIRES: 0 <= index < size.
std::uint64_t random_permute(std::uint64_t key, std::uint64_t index, std::uint64_t size);

}  // namespace cartesian
