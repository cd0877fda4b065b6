// The global gradient norm counts every parameter once, wherever it lives, and clipping by it gives
// the same update for every world size and placement.

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "tests/support/tiny_training.h"

namespace cartesian::test {
namespace {

double norm_of(const ReferenceWeights<double>& tensors) {
  double squares = 0;
  for (const auto& [name, values] : tensors) {
    for (const double value : values) {
      squares += value * value;
    }
  }
  return std::sqrt(squares);
}

TrainingSetup setup_with(int ranks, std::int64_t expert_ranks, double clip_norm) {
  TrainingSetup setup;
  setup.ranks = ranks;
  setup.expert_ranks = expert_ranks;
  setup.train = tiny_train();
  setup.train.steps = 3;
  setup.train.clip_norm = clip_norm;
  return setup;
}

TEST(GradientNormTest, IsTheNormOfTheGatheredGradient) {
  const SyntheticData data(tiny_model().vocab_size, 500, tiny_train().sequence_length, 1);
  const TrainingRecord one = train(setup_with(1, 0, 0), data);
  for (const auto& [ranks, expert_ranks] : {std::pair{1, 0}, {2, 0}, {2, 1}, {3, 0}, {4, 2}}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks, experts over " + std::to_string(expert_ranks));
    const TrainingRecord run = train(setup_with(ranks, expert_ranks, 0), data);
    for (std::size_t i = 0; i < run.steps.size(); ++i) {
      const double norm = run.steps[i].result.gradient_norm;
      EXPECT_NEAR(norm, norm_of(run.steps[i].gradients), 1e-6 * norm);
      EXPECT_NEAR(norm, one.steps[i].result.gradient_norm, 1e-4 * norm);
    }
  }
}

TEST(GradientNormTest, ClippingScalesTheWholeGradient) {
  const SyntheticData data(tiny_model().vocab_size, 500, tiny_train().sequence_length, 1);
  constexpr double kClip = 0.01;
  for (const auto& [ranks, expert_ranks] : {std::pair{1, 0}, {3, 0}, {4, 2}}) {
    TrainingSetup setup = setup_with(ranks, expert_ranks, kClip);
    setup.train.steps = 1;
    const TrainingRecord run = train(setup, data);
    ASSERT_GT(run.steps[0].result.gradient_norm, kClip);
    // After one step Adam's first moment is (1 - beta1) times the clipped gradient.
    EXPECT_NEAR(norm_of(run.first_moments), (1 - setup.train.beta1) * kClip, 1e-6 * kClip);
    const double scale = (1 - setup.train.beta1) * kClip / run.steps[0].result.gradient_norm;
    for (const auto& [name, gradient] : run.steps[0].gradients) {
      std::vector<double> expected;
      for (const double value : gradient) {
        expected.push_back(scale * value);
      }
      EXPECT_LT(norm_relative_error(run.first_moments.at(name), expected), 1e-5) << name;
    }
  }
}

TEST(GradientNormTest, BelowTheLimitNothingIsClipped) {
  const SyntheticData data(tiny_model().vocab_size, 500, tiny_train().sequence_length, 1);
  EXPECT_EQ(train(setup_with(2, 0, 1e6), data).weights, train(setup_with(2, 0, 0), data).weights);
}

TEST(TrainingStepTest, ALossThatIsNotFiniteStopsEveryRankBeforeTheWeightsChange) {
  const SyntheticData data(tiny_model().vocab_size, 500, tiny_train().sequence_length, 1);
  TrainingSetup setup = setup_with(2, 0, 1);
  setup.adjust_weights = [](ParameterStore& store) { store.weights()[3] = NAN; };
  with_ranks(setup, [&](ModelRank& rank) {
    TrainingStep step(setup.train, rank, data.samples());
    try {
      // A token whose embedding is not a number turns up sooner or later.
      for (std::int64_t i = 0; i < 20; ++i) {
        step.run(i);
      }
      ADD_FAILURE() << "no error was thrown";
    } catch (const NumericError& error) {
      EXPECT_NE(std::string(error.what()).find("step "), std::string::npos);
      EXPECT_TRUE(error.on_every_rank());
    }
  });
}

}  // namespace
}  // namespace cartesian::test
