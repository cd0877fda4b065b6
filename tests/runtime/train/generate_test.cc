// Generation and evaluation: on any number of ranks the same tokens and losses.

#include "runtime/train/generate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <mutex>

#include "runtime/train/evaluation.h"
#include "tests/support/tiny_training.h"

namespace cartesian::test {
namespace {

TEST(SampleTokenTest, TemperatureZeroTakesTheMostProbable) {
  const std::vector<float> logits = {1, 3, 2, 3};
  EXPECT_EQ(sample_token(logits, 0, 0, 0.99), 1);  // the lower id of a tie
  EXPECT_EQ(sample_token(logits, 1, 1, 0.99), 1);
}

TEST(SampleTokenTest, DrawsFromTheSoftmax) {
  const std::vector<float> logits = {std::log(1.0F), std::log(2.0F), std::log(5.0F)};
  // In order of probability: 2 up to 5/8, 1 up to 7/8, then 0.
  EXPECT_EQ(sample_token(logits, 1, 0, 0.0), 2);
  EXPECT_EQ(sample_token(logits, 1, 0, 0.62), 2);
  EXPECT_EQ(sample_token(logits, 1, 0, 0.63), 1);
  EXPECT_EQ(sample_token(logits, 1, 0, 0.87), 1);
  EXPECT_EQ(sample_token(logits, 1, 0, 0.88), 0);
  EXPECT_EQ(sample_token(logits, 1, 0, 0.9999999999999999), 0);
  // Temperature 1/2 squares the odds: 25, 4, 1.
  EXPECT_EQ(sample_token(logits, 0.5, 0, 0.83), 2);
  EXPECT_EQ(sample_token(logits, 0.5, 0, 0.84), 1);
  EXPECT_EQ(sample_token(logits, 0.5, 0, 0.97), 0);
  // Of the two most probable: 5/7 and 2/7.
  EXPECT_EQ(sample_token(logits, 1, 2, 0.71), 2);
  EXPECT_EQ(sample_token(logits, 1, 2, 0.72), 1);
  EXPECT_EQ(sample_token(logits, 1, 2, 0.9999999999999999), 1);
  EXPECT_EQ(sample_token(logits, 1, 99, 0.88), 0);
}

TEST(SampleTokenTest, LargeLogitsAndSmallTemperaturesDoNotOverflow) {
  const std::vector<float> logits = {1e30F, -1e30F, 3e30F};
  EXPECT_EQ(sample_token(logits, 1e-3, 0, 0.9999), 2);
}

std::vector<std::int32_t> generated(int ranks, const GenerateOptions& options,
                                    std::int32_t end = -1) {
  std::map<int, std::vector<std::int32_t>> ids;  // by rank
  std::mutex mutex;                              // guards ids
  TrainingSetup setup;
  setup.ranks = ranks;
  with_ranks(setup, [&](ModelRank& rank) {
    std::vector<std::int32_t> mine;
    const std::vector<std::int32_t> prompt = {1, 2};
    generate(rank, prompt, end, options, [&](std::int32_t id) { mine.push_back(id); });
    const std::lock_guard lock(mutex);
    ids[rank.transport().rank()] = mine;
  });
  for (const auto& [rank, theirs] : ids) {
    EXPECT_EQ(theirs, ids[0]);
  }
  return ids[0];
}

TEST(GenerateTest, TheSameTokensOnAnyNumberOfRanks) {
  const GenerateOptions options{.tokens = 20, .temperature = 1, .top_k = 0, .seed = 3};
  const auto one = generated(1, options);
  EXPECT_EQ(one.size(), 20U);  // well past the context of 6 tokens
  EXPECT_EQ(generated(3, options), one);
  GenerateOptions other = options;
  other.seed = 4;
  EXPECT_NE(generated(1, other), one);
}

TEST(GenerateTest, StopsAtTheEndToken) {
  const GenerateOptions options{.tokens = 20, .temperature = 1, .top_k = 0, .seed = 3};
  const auto all = generated(1, options);
  const std::int32_t end = all[7];
  const auto begin = std::ranges::find(all, end);
  EXPECT_EQ(generated(2, options, end), std::vector<std::int32_t>(all.begin(), begin));
}

TEST(GenerateTest, TheMostProbableTokenIsTheReferences) {
  const GenerateOptions options{.tokens = 4, .temperature = 0};
  const auto actual = generated(1, options);
  ReferenceWeights<double> weights;
  with_ranks({}, [&](ModelRank& rank) {
    weights = by_name(rank.parameters(), rank.parameters().weights());
  });
  std::vector<std::int32_t> ids = {1, 2};
  for (const std::int32_t id : actual) {
    const auto length = static_cast<std::int64_t>(ids.size());
    std::pair<double, std::int32_t> best{1e9, -1};  // the target with the smallest loss
    for (std::int32_t target = 0; target < tiny_model().vocab_size; ++target) {
      const std::vector<std::int32_t> targets(ids.size(), target);
      const auto result = reference_model(tiny_model(), weights,
                                          {.ids = ids, .targets = targets, .length = length});
      best = std::min(best, {result.losses.back(), target});
    }
    EXPECT_EQ(id, best.second);
    ids.push_back(id);
  }
}

// With attention that stops at document boundaries what comes before the end of a document does not
// matter.
TEST(GenerateTest, ForgetsEarlierDocuments) {
  std::vector<std::vector<std::int32_t>> continuations;
  TrainingSetup setup;
  setup.model.document_attention = true;
  setup.model.max_position_embeddings = 16;
  with_ranks(setup, [&](ModelRank& rank) {
    constexpr std::int32_t kEnd = 12;
    for (const std::vector<std::int32_t>& prompt :
         {std::vector{5, 9, kEnd, 1, 2}, {8, 0, kEnd, 1, 2}, {8, 0, 3, 1, 2}}) {
      std::vector<std::int32_t>& ids = continuations.emplace_back();
      generate(rank, prompt, kEnd, {.tokens = 8, .temperature = 1, .top_k = 0, .seed = 5},
               [&](std::int32_t id) { ids.push_back(id); });
    }
  });
  EXPECT_EQ(continuations[0], continuations[1]);
  EXPECT_NE(continuations[0], continuations[2]);
}

class EvaluationOf : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(WholeSequencesAndDocuments, EvaluationOf, testing::Bool());

TEST_P(EvaluationOf, IsTheReferencesLossOnAnyNumberOfRanks) {
  const bool documents = GetParam();
  const SyntheticData data(tiny_model().vocab_size, 100, 6, 1, documents ? 4 : 0);
  const std::int64_t count = 5;
  std::vector<EvaluationResult> results;
  ReferenceWeights<double> weights;
  for (const int ranks : {1, 3}) {
    TrainingSetup setup;
    setup.ranks = ranks;
    setup.model.document_attention = documents;
    with_ranks(setup, [&](ModelRank& rank) {
      const EvaluationResult result = evaluate(rank, data.windows(), count);
      if (rank.transport().rank() == 0) {
        results.push_back(result);
      }
      if (ranks == 1) {
        weights = by_name(rank.parameters(), rank.parameters().weights());
      }
    });
  }
  double expected = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    std::vector<std::int32_t> ids(6);
    std::vector<std::int32_t> targets(6);
    std::vector<std::int32_t> starts(documents ? 6 : 0);
    const std::int64_t window = i * data.windows().count() / count;
    data.windows().read(window, ids, targets);
    if (documents) {
      data.windows().read_document_starts(window, starts);
    }
    for (const double loss :
         reference_model(tiny_model(), weights,
                         {.ids = ids, .targets = targets, .length = 6, .document_starts = starts})
             .losses) {
      expected += loss / (count * 6);
    }
  }
  for (const EvaluationResult& result : results) {
    EXPECT_NEAR(result.loss, expected, 1e-5 * expected);
    EXPECT_NEAR(result.perplexity(), std::exp(expected), 1e-4 * std::exp(expected));
    EXPECT_EQ(result.tokens, count * 6);
    EXPECT_EQ(result.loads[0].counts, results[0].loads[0].counts);
  }
}

TEST(EvaluationTest, WindowsAreSpreadEvenly) {
  EXPECT_EQ(evaluated_window(0, 4, 100), 0);
  EXPECT_EQ(evaluated_window(3, 4, 100), 75);
  EXPECT_EQ(evaluated_window(6, 7, 7), 6);
}

}  // namespace
}  // namespace cartesian::test
