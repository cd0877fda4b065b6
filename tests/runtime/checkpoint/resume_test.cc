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
    bool shard_optimizer = false;
    bool balanced = false;  ///< with biases in the choice, and jitter
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
    setup.shard_optimizer = part.shard_optimizer;
    if (part.balanced) {
      setup.model.router_bias = true;
      setup.train.balance_bias = 0.01;
      setup.train.router_jitter = 0.1;
    }
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
      const std::vector<float> first_moments = whole_first_moments(rank);
      const std::vector<float> second_moments = whole_second_moments(rank);
      const std::lock_guard lock(mutex);
      outcome.losses = losses;
      merge_same(by_name(store, store.weights()), outcome.weights);
      merge_same(by_name(store, first_moments), outcome.first_moments);
      merge_same(by_name(store, second_moments), outcome.second_moments);
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

TEST_F(ResumeTest, BiasesAndJitterGoOnToo) {
  for (const int ranks : {1, 2}) {
    const Path directory = directory_ / std::to_string(ranks);
    const Outcome whole = run({.ranks = ranks, .balanced = true}, directory);
    const Path parts = directory / "parts";
    const Outcome first = run({.ranks = ranks, .end = kStop, .balanced = true}, parts);
    Outcome second = run({.ranks = ranks, .first = kStop, .balanced = true}, parts);
    second.losses.insert(second.losses.begin(), first.losses.begin(), first.losses.end());
    EXPECT_TRUE(second == whole) << ranks << " ranks";
    EXPECT_TRUE(whole.weights.contains("model.layers.0.expert_bias1"));
  }
}

TEST_F(ResumeTest, ShardedOrNotTheBitsAreTheSame) {
  const Outcome whole = run({.ranks = 3}, directory_ / "whole");
  for (const bool sharded_first : {true, false}) {
    const Path parts = directory_ / (sharded_first ? "sharded" : "whole-first");
    const Outcome first = run({.ranks = 3, .end = kStop, .shard_optimizer = sharded_first}, parts);
    Outcome second = run({.ranks = 3, .first = kStop, .shard_optimizer = !sharded_first}, parts);
    second.losses.insert(second.losses.begin(), first.losses.begin(), first.losses.end());
    EXPECT_TRUE(second == whole) << "sharded first: " << sharded_first;
  }
}

/// Moments that tell tensors and elements apart.
void number_moments(ParameterStore& store) {
  for (const NamedTensor& tensor : store.tensors()) {
    const std::uint64_t key = random_key(3, tensor.name);
    for (std::int64_t i = 0; i < tensor.shape.numel(); ++i) {
      const ElementRange one{tensor.offset + i, tensor.offset + i + 1};
      if (tensor.offset >= store.dense_size() ||
          intersect(one, store.dense_moments()).size() == 1) {
        const auto index = static_cast<std::uint64_t>(i);
        store.first_moments(one)[0] = static_cast<float>(random_uniform(key, 2 * index));
        store.second_moments(one)[0] = static_cast<float>(random_uniform(key, 2 * index + 1));
      }
    }
  }
}

TEST_F(ResumeTest, AnyRanksReadWhatAnyShardedRanksWrote) {
  TrainingSetup setup;
  setup.model = model();
  setup.shard_optimizer = true;
  TinyStore expected(setup.model);
  number_moments(expected.store);
  const auto first = by_name(expected.store, expected.store.first_moments());
  const auto second = by_name(expected.store, expected.store.second_moments());
  for (const int writers : {1, 2, 3, 4}) {
    setup.ranks = writers;
    with_ranks(setup, [&](ModelRank& rank) {
      number_moments(rank.parameters());
      CheckpointWriter writer(*files_, rank.transport(), directory_ / "saved");
      writer.begin(rank.parameters(), info_at(setup.model, writers));
      std::ranges::fill(rank.parameters().first_moments(), NAN);
      writer.commit();
    });
    for (const int readers : {1, 2, 3, 4}) {
      SCOPED_TRACE(std::to_string(writers) + " writers, " + std::to_string(readers) + " readers");
      setup.ranks = readers;
      std::mutex mutex;
      with_ranks(setup, [&](ModelRank& rank) {
        ParameterStore& store = rank.parameters();
        CheckpointReader(*files_, directory_ / "saved" / checkpoint_name(writers))
            .read_moments(store);
        const std::vector<float> read_first = whole_first_moments(rank);
        const std::vector<float> read_second = whole_second_moments(rank);
        const std::lock_guard lock(mutex);
        for (const auto& [name, values] : by_name(store, read_first)) {
          EXPECT_EQ(values, first.at(name)) << name;
        }
        for (const auto& [name, values] : by_name(store, read_second)) {
          EXPECT_EQ(values, second.at(name)) << name;
        }
      });
    }
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
