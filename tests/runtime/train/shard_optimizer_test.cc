// Spreading the dense part's moments over the ranks (ZeRO stage 1) changes where they are, not one
// bit of the run.

#include <gtest/gtest.h>

#include "runtime/model/model_memory.h"
#include "tests/support/tiny_training.h"

namespace cartesian::test {
namespace {

TrainingSetup setup_of(int ranks, std::int64_t expert_ranks, double clip_norm) {
  TrainingSetup setup;
  setup.ranks = ranks;
  setup.expert_ranks = expert_ranks;
  setup.train = tiny_train();
  setup.train.steps = 5;
  setup.train.clip_norm = clip_norm;
  return setup;
}

TEST(ShardOptimizerTest, GivesTheSameBits) {
  const SyntheticData data(tiny_model().vocab_size, 500, tiny_train().sequence_length, 1);
  for (const auto& [ranks, expert_ranks] : {std::pair{1, 0}, {2, 0}, {3, 0}, {4, 2}}) {
    for (const double clip_norm : {0.0, 0.01}) {
      SCOPED_TRACE(std::to_string(ranks) + " ranks, clipped at " + std::to_string(clip_norm));
      TrainingSetup setup = setup_of(ranks, expert_ranks, clip_norm);
      const TrainingRecord whole = train(setup, data);
      setup.shard_optimizer = true;
      const TrainingRecord sharded = train(setup, data);
      for (std::size_t i = 0; i < whole.steps.size(); ++i) {
        EXPECT_EQ(sharded.steps[i].result.loss, whole.steps[i].result.loss);
        EXPECT_EQ(sharded.steps[i].result.gradient_norm, whole.steps[i].result.gradient_norm);
        EXPECT_EQ(sharded.steps[i].gradients, whole.steps[i].gradients);
      }
      EXPECT_EQ(sharded.weights, whole.weights);
      EXPECT_EQ(sharded.first_moments, whole.first_moments);
      EXPECT_EQ(sharded.second_moments, whole.second_moments);
    }
  }
}

TEST(ShardOptimizerTest, ARankHoldsItsShareOfTheMoments) {
  for (const int ranks : {2, 3, 4}) {
    TrainingSetup setup = setup_of(ranks, 0, 0);
    setup.shard_optimizer = true;
    with_ranks(setup, [&](ModelRank& rank) {
      ParameterStore& store = rank.parameters();
      const auto of_experts = static_cast<std::size_t>(store.size() - store.dense_size());
      const double share = static_cast<double>(store.dense_size()) / ranks;
      EXPECT_NEAR(static_cast<double>(store.first_moments().size() - of_experts), share, 16);
      EXPECT_EQ(store.second_moments().size(), store.first_moments().size());
      EXPECT_EQ(store.bytes(),
                (2 * store.weights().size() + 2 * store.first_moments().size()) * sizeof(float));
    });
  }
}

TEST(ShardOptimizerTest, SharesMakeUpTheDensePart) {
  ParameterStore store;
  LanguageModel model(tiny_model(), Placement::linear(placement_shape(tiny_model(), 1), 1), 0,
                      store);
  for (const int ranks : {1, 2, 7, 10'000}) {
    const std::vector<std::size_t> bounds = store.dense_bounds(ranks);
    ASSERT_EQ(bounds.size(), static_cast<std::size_t>(ranks + 1));
    EXPECT_EQ(bounds.front(), 0U);
    EXPECT_EQ(bounds.back(), static_cast<std::size_t>(store.dense_size()));
    EXPECT_TRUE(std::ranges::is_sorted(bounds));
  }
}

TEST(ShardOptimizerTest, TheEstimatesKnowIt) {
  const ModelConfig config;
  const MemoryPlan whole{.ranks = 8, .expert_ranks = 8, .tokens = 1000};
  MemoryPlan sharded = whole;
  sharded.shard_optimizer = true;
  const double saved =
      estimate_memory(config, whole).total() - estimate_memory(config, sharded).total();
  EXPECT_DOUBLE_EQ(saved, least_model_bytes(config, 8) - least_model_bytes(config, 8, true));
  EXPECT_GT(saved, 0);
  MemoryPlan recomputed = whole;
  recomputed.recompute = true;
  EXPECT_LT(estimate_memory(config, recomputed).activations,
            estimate_memory(config, whole).activations);
}

}  // namespace
}  // namespace cartesian::test
