// The experts' log against counts of the choices that the tests' own recorder has seen, on one rank
// and on several.

#include "runtime/train/expert_log.h"

#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <nlohmann/json.hpp>

#include "tests/support/tiny_training.h"

namespace cartesian::test {
namespace {

using Pairs = std::vector<std::vector<std::vector<std::int64_t>>>;

/// [layer][A][B] of the first `steps` steps.
Pairs expected_pairs(const ModelConfig& model, const TrainingRecord& record, std::size_t steps) {
  const auto n = static_cast<std::size_t>(model.num_experts);
  Pairs pairs(static_cast<std::size_t>(model.moe_layers()), {n, std::vector<std::int64_t>(n)});
  for (std::size_t step = 0; step < steps; ++step) {
    for (const auto& sub_layers : record.steps[step].experts) {
      for (std::size_t layer = 0; layer < pairs.size(); ++layer) {
        const auto& a = sub_layers[2 * layer];
        for (std::size_t token = 0; token < a.size(); ++token) {
          for (const std::int32_t i : a[token]) {
            for (const std::int32_t j : sub_layers[2 * layer + 1][token]) {
              ++pairs[layer][static_cast<std::size_t>(i)][static_cast<std::size_t>(j)];
            }
          }
        }
      }
    }
  }
  return pairs;
}

/// The records of a run that are due, and one at its end.
std::vector<nlohmann::ordered_json> records_of(const TrainingSetup& setup,
                                               const SyntheticData& data, std::int64_t every) {
  std::vector<nlohmann::ordered_json> records;
  std::mutex mutex;
  with_ranks(setup, [&](ModelRank& rank) {
    ExpertLog log(setup.model, every);
    TrainingStep step(setup.train, rank, data.samples());
    for (std::int64_t i = 0; i < setup.train.steps; ++i) {
      rank.context().on_route = [&](const RoutedChunk& chunk) { log.route(chunk); };
      const StepResult result = step.run(i);
      rank.context().on_route = {};
      log.add_step(result.loads);
      const bool last = i + 1 == setup.train.steps;
      const auto record = log.take(rank.context().op, rank.transport(), i + 1, last);
      const std::lock_guard lock(mutex);
      if (record && rank.transport().rank() == 0) {
        records.push_back(*record);
      }
    }
  });
  return records;
}

TrainingSetup setup_of(int ranks, int chunks) {
  TrainingSetup setup;
  setup.train = tiny_train();
  setup.train.steps = 5;
  setup.train.micro_batch_sequences = 4;
  setup.ranks = ranks;
  setup.chunks = chunks;
  return setup;
}

TEST(ExpertLogTest, CountsLoadsAndPairs) {
  const TrainingSetup setup = setup_of(1, 1);
  const SyntheticData data(setup.model.vocab_size, 2000, setup.train.sequence_length, 3);
  const TrainingRecord reference = train(setup, data);
  const auto records = records_of(setup, data, 2);
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[0]["step"], 2);
  EXPECT_EQ(records[1]["steps"], 2);
  EXPECT_EQ(records[2]["steps"], 1);
  EXPECT_FALSE(records[1].contains("pairs"));
  EXPECT_EQ(records[2]["pair_steps"], 5);
  EXPECT_EQ(records[2]["pairs"].get<Pairs>(), expected_pairs(setup.model, reference, 5));
  for (std::size_t i = 0; i < reference.steps[0].result.loads.size(); ++i) {
    std::vector<double> sum = reference.steps[0].result.loads[i].counts;
    std::ranges::transform(sum, reference.steps[1].result.loads[i].counts, sum.begin(),
                           std::plus<>());
    EXPECT_EQ(records[0]["loads"][i / 2][i % 2].get<std::vector<double>>(), sum);
  }
}

TEST(ExpertLogTest, IsTheSameOnAnyNumberOfRanks) {
  const TrainingSetup one = setup_of(1, 1);
  const SyntheticData data(one.model.vocab_size, 2000, one.train.sequence_length, 3);
  const auto expected = records_of(one, data, 1);
  EXPECT_EQ(records_of(setup_of(2, 1), data, 1), expected);
  EXPECT_EQ(records_of(setup_of(3, 2), data, 1), expected);
  EXPECT_EQ(records_of(setup_of(2, 6), data, 1), expected);  // B routes while A still does
}

TEST(ExpertLogTest, AConventionalModelHasNoPairsAndADenseOneNothing) {
  TrainingSetup setup = setup_of(2, 1);
  const SyntheticData data(setup.model.vocab_size, 2000, setup.train.sequence_length, 3);
  setup.model.sub_layers = 1;
  const auto records = records_of(setup, data, 5);
  ASSERT_EQ(records.size(), 1U);
  EXPECT_FALSE(records[0].contains("pairs"));
  setup.model.sub_layers = 0;
  EXPECT_TRUE(records_of(setup, data, 1).empty());
}

TEST(ExpertLogTest, TheIntervalBoundsTheNumberOfRecords) {
  EXPECT_EQ(expert_log_interval(7, 1000000), 7);
  EXPECT_EQ(expert_log_interval(0, 0), 1);
  EXPECT_EQ(expert_log_interval(0, 200), 1);
  EXPECT_EQ(expert_log_interval(0, 201), 2);
  EXPECT_EQ(expert_log_interval(0, 100000), 500);
}

}  // namespace
}  // namespace cartesian::test
