#pragma once
// The header of a Megatron index, byte by byte (see token_file.h). For token_file*.cc and tests.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cartesian::token_file_layout {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

inline constexpr std::string_view kMagic{"MMIDIDX\0\0", 9};
inline constexpr std::uint64_t kVersion = 1;

inline constexpr std::size_t kVersionAt = 9;
inline constexpr std::size_t kTypeAt = 17;
inline constexpr std::size_t kSequencesAt = 18;
inline constexpr std::size_t kBoundsAt = 26;
inline constexpr std::size_t kHeaderBytes = 34;

/// Of a sequence in the index: its length and its byte offset.
inline constexpr std::size_t kSequenceBytes = sizeof(std::int32_t) + sizeof(std::int64_t);
inline constexpr std::size_t kBoundBytes = sizeof(std::int64_t);

}  // namespace cartesian::token_file_layout
