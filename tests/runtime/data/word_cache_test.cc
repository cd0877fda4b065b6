#include "runtime/data/word_cache.h"

#include <gtest/gtest.h>

namespace cartesian {
namespace {

using Ids = std::vector<std::int32_t>;

TEST(WordCache, AsksOnceForEachWord) {
  int calls = 0;
  const WordCache::Encode encode = [&](std::string_view word, Ids& ids) {
    ++calls;
    ids.insert(ids.end(), word.begin(), word.end());
  };
  WordCache cache;
  Ids ids = {7};
  for (const char* word : {"ab", "", "c", "ab", "", "c"}) {
    cache.encode(word, ids, encode);
  }
  EXPECT_EQ(ids, (Ids{7, 'a', 'b', 'c', 'a', 'b', 'c'}));
  EXPECT_EQ(calls, 3);
  const std::string longer(WordCache::kMaxBytes + 1, 'x');
  for (int i = 0; i < 2; ++i) {  // too long to be kept
    ids.clear();
    cache.encode(longer, ids, encode);
    EXPECT_EQ(ids, Ids(longer.begin(), longer.end()));
  }
  EXPECT_EQ(calls, 5);
}

TEST(WordCache, ForgetsWhenItIsFull) {
  std::size_t calls = 0;
  const WordCache::Encode encode = [&](std::string_view word, Ids& ids) {
    ++calls;
    ids.push_back(std::stoi(std::string(word)));
  };
  WordCache cache;
  Ids ids;
  const auto ask = [&](std::size_t word) {
    ids.clear();
    cache.encode(std::to_string(word), ids, encode);
    EXPECT_EQ(ids, Ids{static_cast<std::int32_t>(word)});
  };
  for (std::size_t word = 0; word < WordCache::kMaxWords; ++word) {
    ask(word);
  }
  ask(0);
  EXPECT_EQ(calls, WordCache::kMaxWords);
  ask(WordCache::kMaxWords);
  ask(0);
  EXPECT_EQ(calls, WordCache::kMaxWords + 2);
}

}  // namespace
}  // namespace cartesian
