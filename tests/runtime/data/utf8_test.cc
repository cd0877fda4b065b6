#include "runtime/data/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace cartesian {
namespace {

/// The encoding of any number below 2^21 by the general scheme, valid character or not.
std::string encode(std::uint32_t code, int length) {
  if (length == 1) {
    return {static_cast<char>(code)};
  }
  std::string bytes;
  const std::uint32_t marks[] = {0, 0, 0xC0, 0xE0, 0xF0};
  bytes.push_back(static_cast<char>(marks[length] | (code >> (6 * (length - 1)))));
  for (int i = length - 2; i >= 0; --i) {
    bytes.push_back(static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F)));
  }
  return bytes;
}

TEST(Utf8, TakesEveryCharacterAndNoOther) {
  for (std::uint32_t code = 0; code < 0x200000; ++code) {
    const bool exists = code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
    const int shortest = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int length = shortest; length <= 4; ++length) {
      const bool valid = exists && length == shortest;
      ASSERT_EQ(find_invalid_utf8(encode(code, length)).has_value(), !valid)
          << std::hex << code << " in " << length;
    }
  }
}

TEST(Utf8, GivesTheOffsetOfTheFirstBadByte) {
  EXPECT_EQ(find_invalid_utf8(""), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("plain text, longer than a word"), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("\xFF"), 0U);
  EXPECT_EQ(find_invalid_utf8("abc\x80"), 3U);
  EXPECT_EQ(find_invalid_utf8("0123456789\xC3"), 10U);           // truncated at the end
  EXPECT_EQ(find_invalid_utf8("01234567\xE2\x82x89"), 8U);       // truncated by another
  EXPECT_EQ(find_invalid_utf8("\xE2\x82\xAC\xF0\x9F\x98"), 3U);  // after a good one
  EXPECT_EQ(find_invalid_utf8(std::string("nul\0nul", 7)), std::nullopt);
}

TEST(Utf8, FindsABadByteAnywhere) {
  const std::string text = "a\u00e4b\u20acc\U0001F600 and then some ASCII to skip over";
  for (std::size_t at = 0; at < text.size(); ++at) {
    std::string damaged = text;
    damaged[at] = '\xFF';
    const auto found = find_invalid_utf8(damaged);
    ASSERT_TRUE(found.has_value());
    EXPECT_LE(*found, at);
    EXPECT_GE(*found + 4, at + 1);  // it begins at most a character earlier
  }
}

}  // namespace
}  // namespace cartesian
