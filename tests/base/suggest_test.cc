#include "base/suggest.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace cartesian {
namespace {

TEST(EditDistance, CountsEdits) {
  EXPECT_EQ(edit_distance("", ""), 0U);
  EXPECT_EQ(edit_distance("abc", ""), 3U);
  EXPECT_EQ(edit_distance("", "abc"), 3U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(edit_distance("steps", "setps"), 1U);  // neighbours swapped
  EXPECT_EQ(edit_distance("flat", "flt"), 1U);
  EXPECT_EQ(edit_distance("seed", "sead"), 1U);
}

TEST(NearestWord, SuggestsOnlyWhatIsNear) {
  const std::vector<std::string> keys = {"train.steps", "train.seed", "train.batch_sequences"};
  EXPECT_EQ(nearest_word("train.step", keys), "train.steps");
  EXPECT_EQ(nearest_word("train.batch_seqences", keys), "train.batch_sequences");
  EXPECT_EQ(nearest_word("exchange.flow", keys), "");
  EXPECT_EQ(nearest_word("x", std::vector<std::string>()), "");
}

TEST(DidYouMean, EndsASentence) {
  constexpr std::array<std::string_view, 2> kFlows = {"flat", "pivot"};
  EXPECT_EQ(did_you_mean("pivto", kFlows), "; did you mean 'pivot'?");
  EXPECT_EQ(did_you_mean("tree", kFlows), "");
}

}  // namespace
}  // namespace cartesian
