// A run that was stopped, saved and loaded goes on as if nothing had happened: the same bits on as
// many ranks, the same losses on others.

#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "tests/support/tiny_checkpoint.h"

namespace cartesian::test {
namespace {

constexpr std::int64_t kSteps = 20;
constexpr std::int64_t kStop = 10;

class ResumeTest : public testing::Test {
 protected:
  struct Part {
    int ranks = 1;
    std::int64_t first = 0;
    std::int64_t end = kSteps;
    std::int64_t expert_ranks = 0;
  };
  struct Outcome {
    std::vector<double> losses;
    ReferenceWeights<double> weights;
    ReferenceWeights<double> first_moments;
    ReferenceWeights<double> second_moments;
    bool operator==(const Outcome&) const = default;
  };

  ResumeTest() : files_(make_posix_file_system()) {}

  static ModelConfig model() {
    ModelConfig config = tiny_model();
    config.num_experts = 5;
    return config;
  }

  /// Steps [part.first, part.end), loading step part.first before and saving part.end after.
  Outcome run(const Part& part, const Path& directory) {
    TrainingSetup setup;
    setup.model = model();
    setup.train = tiny_train();
    setup.ranks = part.ranks;
    setup.expert_ranks = part.expert_ranks;
    Outcome outcome;
    std::mutex mutex;  // guards outcome
    with_ranks(setup, [&](ModelRank& rank) {
      ParameterStore& store = rank.parameters();
      if (part.first > 0) {
        std::ranges::fill(store.weights(), 1e9F);
        CheckpointReader reader(*files_, directory / checkpoint_name(part.first));
        EXPECT_EQ(reader.model(), setup.model);
        EXPECT_EQ(reader.trainer_state()->step, part.first);
        EXPECT_EQ(reader.trainer_state()->sequences, part.first * setup.train.batch_sequences);
        reader.read_weights(store);
        reader.read_moments(store);
        rank.pack();
      }
      TrainingStep step(setup.train, rank, data_.samples());
      std::vector<double> losses;
      for (std::int64_t i = part.first; i < part.end; ++i) {
        losses.push_back(step.run(i).loss);
      }
      CheckpointWriter writer(*files_, rank.transport(), directory);
      writer.begin(store, info_at(setup.model, part.end));
      std::ranges::fill(store.gradients(), NAN);  // training may go on while it is written
      EXPECT_EQ(writer.commit(), directory / checkpoint_name(part.end));
      const std::lock_guard lock(mutex);
      outcome.losses = losses;
      merge_same(by_name(store, store.weights()), outcome.weights);
      merge_same(by_name(store, store.first_moments()), outcome.first_moments);
      merge_same(by_name(store, store.second_moments()), outcome.second_moments);
    });
    return outcome;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_;
  SyntheticData data_{model().vocab_size, 1000, tiny_train().sequence_length, 1};
};

TEST_F(ResumeTest, OnAsManyRanksTheBitsAreThoseOfOneRun) {
  for (const auto& [ranks, expert_ranks] : {std::pair{1, 0}, {2, 0}, {2, 1}}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks, experts over " + std::to_string(expert_ranks));
    const Path directory =
        directory_ / (std::to_string(ranks) + "-" + std::to_string(expert_ranks));
    const Outcome whole = run({.ranks = ranks, .expert_ranks = expert_ranks}, directory);
    const Path parts = directory / "parts";
    Outcome first = run({.ranks = ranks, .end = kStop, .expert_ranks = expert_ranks}, parts);
    Outcome second = run({.ranks = ranks, .first = kStop, .expert_ranks = expert_ranks}, parts);
    second.losses.insert(second.losses.begin(), first.losses.begin(), first.losses.end());
    EXPECT_TRUE(second == whole);
  }
}

TEST_F(ResumeTest, OnOtherRanksTheLossesAreTheSame) {
  const Outcome whole = run({.ranks = 2}, directory_ / "whole");
  run({.ranks = 2, .end = kStop}, directory_ / "parts");
  for (const auto& [ranks, expert_ranks] : {std::pair{1, 0}, {3, 0}, {4, 2}}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks");
    const Outcome rest =
        run({.ranks = ranks, .first = kStop, .expert_ranks = expert_ranks}, directory_ / "parts");
    ASSERT_EQ(rest.losses.size(), static_cast<std::size_t>(kSteps - kStop));
    for (std::size_t i = 0; i < rest.losses.size(); ++i) {
      const double expected = whole.losses[i + kStop];
      EXPECT_NEAR(rest.losses[i], expected, 1e-5 * expected) << "step " << kStop + i;
    }
  }
}

TEST_F(ResumeTest, TheFilesDoNotDependOnWhoWroteThem) {
  const ModelConfig config = model();
  for (const int ranks : {1, 3}) {
    TrainingSetup setup;
    setup.model = config;
    setup.ranks = ranks;
    with_ranks(setup, [&](ModelRank& rank) {
      CheckpointWriter writer(*files_, rank.transport(), directory_ / "saved");
      writer.begin(rank.parameters(), info_at(config, ranks));
      writer.commit();
    });
  }
  const auto weights = [&](std::int64_t step) {
    CheckpointReader reader(*files_, directory_ / "saved" / checkpoint_name(step));
    reader.verify();
    TinyStore tiny(config);
    reader.read_weights(tiny.store);
    return by_name(tiny.store, tiny.store.weights());
  };
  EXPECT_EQ(weights(1), weights(3));
}

}  // namespace
}  // namespace cartesian::test
