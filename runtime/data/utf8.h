#pragma once
// UTF-8 validation (Unicode 15, table 3-7): no overlong forms, no surrogates, nothing above
// U+10FFFF.

#include <cstddef>
#include <optional>
#include <string_view>

namespace cartesian {

/// The offset of the first byte of the first ill-formed or truncated character, if there is one.
std::optional<std::size_t> find_invalid_utf8(std::string_view text);

/// Whether `byte` can only be inside a character, not at its start.
constexpr bool is_utf8_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

}  // namespace cartesian
