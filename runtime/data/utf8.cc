#include "runtime/data/utf8.h"

#include <cstdint>
#include <cstring>

namespace cartesian {

namespace {

/// The lengths of well-formed characters: which second bytes a first byte admits is what rules out
/// overlong forms, surrogates and what is above U+10FFFF.
struct Lead {
  std::size_t length = 0;  // of the character; 0: not a first byte
  unsigned char second_min = 0x80;
  unsigned char second_max = 0xBF;
};

Lead lead_of(unsigned char byte) {
  if (byte < 0x80) {
    return {.length = 1};
  }
  if (byte >= 0xC2 && byte <= 0xDF) {
    return {.length = 2};
  }
  if (byte >= 0xE0 && byte <= 0xEF) {
    const unsigned char min = byte == 0xE0 ? 0xA0 : 0x80;
    const unsigned char max = byte == 0xED ? 0x9F : 0xBF;
    return {3, min, max};
  }
  if (byte >= 0xF0 && byte <= 0xF4) {
    const unsigned char min = byte == 0xF0 ? 0x90 : 0x80;
    const unsigned char max = byte == 0xF4 ? 0x8F : 0xBF;
    return {4, min, max};
  }
  return {};
}

/// The length of the well-formed character that `text` begins with, or 0.
std::size_t character_length(std::string_view text) {
  const Lead lead = lead_of(static_cast<unsigned char>(text[0]));
  if (lead.length > text.size()) {
    return 0;
  }
  if (lead.length >= 2) {
    const auto second = static_cast<unsigned char>(text[1]);
    if (second < lead.second_min || second > lead.second_max) {
      return 0;
    }
  }
  for (std::size_t i = 2; i < lead.length; ++i) {
    if (!is_utf8_continuation(text[i])) {
      return 0;
    }
  }
  return lead.length;
}

bool is_ascii_word(const char* bytes) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof(word));
  return (word & 0x8080808080808080ULL) == 0;
}

}  // namespace

std::optional<std::size_t> find_invalid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    if (text.size() - at >= 8 && is_ascii_word(text.data() + at)) {
      at += 8;
      continue;
    }
    const std::size_t length = character_length(text.substr(at));
    if (length == 0) {
      return at;
    }
    at += length;
  }
  return std::nullopt;
}

}  // namespace cartesian
