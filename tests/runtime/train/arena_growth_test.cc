// At steady load nothing allocates: after warm-up neither the arenas nor the exchange's staging
// memory grow.

#include <gtest/gtest.h>

#include "tests/support/tiny_training.h"

namespace cartesian::test {
namespace {

struct Growths {
  std::int64_t arenas = 0;
  double staging = 0;
  bool operator==(const Growths&) const = default;
};
void PrintTo(const Growths& g, std::ostream* out) {
  *out << g.arenas << " of arenas, " << g.staging << " of staging memory";
}

Growths growths_of(ModelRank& rank) {
  return {rank.arena_growths(),
          rank.context().op.metrics.counter("cartesian_exchange_staging_growths_total").value()};
}

TEST(ArenaGrowthTest, IsZeroAtSteadyLoad) {
  const SyntheticData data(tiny_model().vocab_size, 500, tiny_train().sequence_length, 1);
  for (const int ranks : {1, 2, 3}) {
    for (const int chunks : {1, 3}) {
      SCOPED_TRACE(std::to_string(ranks) + " ranks, " + std::to_string(chunks) + " chunks");
      TrainingSetup setup;
      setup.ranks = ranks;
      setup.chunks = chunks;
      setup.recompute = chunks > 1;
      setup.shard_optimizer = chunks > 1;
      setup.train = tiny_train();
      setup.train.learning_rate = 0;  // the same step again and again
      setup.train.min_learning_rate = 0;
      setup.train.micro_batch_sequences = 4;
      with_ranks(setup, [&](ModelRank& rank) {
        TrainingStep step(setup.train, rank, data.samples());
        for (int i = 0; i < 3; ++i) {
          step.run(0);
        }
        const Growths warm = growths_of(rank);
        EXPECT_GT(warm.arenas, 0);
        for (int i = 0; i < 10; ++i) {
          step.run(0);
        }
        EXPECT_EQ(growths_of(rank), warm);
      });
    }
  }
}

// The load of real steps wavers; a quarter to spare takes that in.
TEST(ArenaGrowthTest, IsZeroWhileTraining) {
  const SyntheticData data(tiny_model().vocab_size, 2000, tiny_train().sequence_length, 1);
  TrainingSetup setup;
  setup.ranks = 2;
  setup.train = tiny_train();
  with_ranks(setup, [&](ModelRank& rank) {
    TrainingStep step(setup.train, rank, data.samples());
    std::int64_t done = 0;
    while (done < 20) {
      step.run(done++);
    }
    const Growths warm = growths_of(rank);
    while (done < 40) {
      step.run(done++);
    }
    EXPECT_EQ(growths_of(rank), warm);
  });
}

}  // namespace
}  // namespace cartesian::test
