#include "base/hash.h"

#include <gtest/gtest.h>

namespace cartesian {
namespace {

TEST(Hash, IsXxh3) {
  // XXH3_64bits of nothing, as its specification's test vectors give it.
  EXPECT_EQ(hash_bytes(""), 0x2D06800538D394C2U);
  EXPECT_EQ(hash_hex(hash_bytes("")), "2d06800538d394c2");
  EXPECT_EQ(hash_hex(0), "0000000000000000");
}

TEST(Hash, PiecesGiveTheHashOfTheWhole) {
  std::string text(10'000, 'x');
  for (std::size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<char>(i * i % 251);
  }
  Hasher hasher;
  for (std::size_t i = 0, piece = 1; i < text.size(); i += piece, piece = piece * 2 + 1) {
    hasher.update(std::string_view(text).substr(i, piece));
  }
  EXPECT_EQ(hasher.digest(), hash_bytes(text));
  EXPECT_EQ(Hasher().digest(), hash_bytes(""));
}

TEST(Hash, SeesEveryBit) {
  std::string text(300, 'a');
  const std::uint64_t before = hash_bytes(text);
  for (char& c : text) {
    c ^= 1;
    EXPECT_NE(hash_bytes(text), before);
    c ^= 1;
  }
}

}  // namespace
}  // namespace cartesian
