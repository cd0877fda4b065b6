// The routers' biases: how a step moves them, and that they even out what a skewed router does.

#include <gtest/gtest.h>

#include "runtime/train/expert_load.h"
#include "tests/support/tiny_training.h"

namespace cartesian::test {
namespace {

TEST(RouterBiasTest, MovesTowardsTheMeanLoad) {
  TrainingSetup setup;
  setup.model.num_hidden_layers = 1;
  setup.model.router_bias = true;
  setup.adjust_weights = [](ParameterStore& store) { std::ranges::fill(store.weights(), 0.0F); };
  with_ranks(setup, [&](ModelRank& rank) {
    const RouterLoad uneven{.counts = {4, 0, 2, 2}, .probabilities = {}};
    const RouterLoad even{.counts = {2, 2, 2, 2}, .probabilities = {}};
    const std::vector<RouterLoad> loads = {uneven, uneven};
    const std::array rates = {0.5, 0.25};
    EXPECT_EQ(rank.model().move_biases(loads, rates), 0.5F);
    EXPECT_EQ(rank.model().move_biases(std::vector{uneven, even}, rates), 1.0F);
    const auto weights = by_name(rank.parameters(), rank.parameters().weights());
    EXPECT_EQ(weights.at("model.layers.0.expert_bias0"), (std::vector<double>{-1, 1, 0, 0}));
    EXPECT_EQ(weights.at("model.layers.0.expert_bias1"), (std::vector<double>{-0.25, 0.25, 0, 0}));
  });
}

TEST(RouterBiasTest, WithoutBiasesNothingMoves) {
  TrainingSetup setup;
  with_ranks(setup, [&](ModelRank& rank) {
    const RouterLoad load{.counts = {4, 0, 2, 2}, .probabilities = {}};
    const std::array rates = {0.5, 0.5};
    EXPECT_EQ(rank.model().move_biases(std::vector{load, load}, rates), 0);
  });
}

// From a bias that favours one expert; with a learning rate of zero nothing else can help.
TEST(RouterBiasTest, EvensOutTheLoads) {
  TrainingSetup setup;
  setup.ranks = 2;
  setup.model.router_bias = true;
  setup.train = tiny_train();
  setup.train.steps = 60;
  setup.train.learning_rate = 0;
  setup.train.min_learning_rate = 0;
  setup.train.batch_sequences = 32;
  setup.train.micro_batch_sequences = 32;
  setup.train.balance_bias = 0.02;
  setup.adjust_weights = [](ParameterStore& store) {
    for (const NamedTensor& tensor : store.tensors()) {
      if (tensor.name.find("expert_bias") != std::string::npos) {
        const auto bias = store.weights().begin() + tensor.offset;
        std::fill_n(bias, tensor.shape.numel(), 0.0F);
        bias[0] = 0.5F;
      }
    }
  };
  const SyntheticData data(setup.model.vocab_size, 2000, setup.train.sequence_length, 1);
  const TrainingRecord run = train(setup, data);
  const auto mean_of = [&](std::size_t begin) {
    double sum = 0;
    for (std::size_t i = begin; i < begin + 5; ++i) {
      sum += mean_balancedness(run.steps[i].result.loads) / 5;
    }
    return sum;
  };
  EXPECT_LT(mean_of(0), 0.6);
  EXPECT_GT(mean_of(55), 0.8);
  EXPECT_FLOAT_EQ(static_cast<float>(run.steps.front().result.largest_bias), 0.48F);
}

}  // namespace
}  // namespace cartesian::test
