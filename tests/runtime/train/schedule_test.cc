// The learning rate over a run.

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/train/optimizer.h"
#include "runtime/train/training_step.h"

namespace cartesian {
namespace {

TrainConfig config() {
  return {.steps = 110, .learning_rate = 1.0, .min_learning_rate = 0.2, .warmup_steps = 10};
}

TEST(ScheduleTest, WarmsUpLinearlyThenFollowsACosine) {
  EXPECT_DOUBLE_EQ(learning_rate(config(), 0), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(config(), 4), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(config(), 9), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(config(), 10), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(config(), 35), 0.2 + 0.8 * (0.5 + 0.5 * std::sqrt(0.5)));
  EXPECT_DOUBLE_EQ(learning_rate(config(), 60), 0.6);  // half-way
  EXPECT_DOUBLE_EQ(learning_rate(config(), 110), 0.2);
  EXPECT_DOUBLE_EQ(learning_rate(config(), 1000), 0.2);
  for (std::int64_t step = 10; step < 110; ++step) {
    EXPECT_GT(learning_rate(config(), step), learning_rate(config(), step + 1));
  }
}

TEST(ScheduleTest, WithoutWarmUpItStartsAtThePeak) {
  TrainConfig train = config();
  train.warmup_steps = 0;
  EXPECT_DOUBLE_EQ(learning_rate(train, 0), 1.0);
}

TEST(ScheduleTest, ARunShorterThanItsWarmUpOnlyWarmsUp) {
  TrainConfig train = config();
  train.steps = 5;
  EXPECT_DOUBLE_EQ(learning_rate(train, 4), 0.5);
  train.steps = 10;
  EXPECT_DOUBLE_EQ(learning_rate(train, 9), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(train, 10), 1.0);
}

TEST(SequencesOfRankTest, EverySequenceHasOneHome) {
  for (const std::int64_t total : {0, 1, 2, 7, 32}) {
    for (const int ranks : {1, 2, 3, 15}) {
      std::int64_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const SequenceRange range = sequences_of_rank(total, rank, ranks);
        EXPECT_EQ(range.first, next);
        EXPECT_GE(range.count, total / ranks);
        EXPECT_LE(range.count, total / ranks + 1);
        next += range.count;
      }
      EXPECT_EQ(next, total);
    }
  }
}

}  // namespace
}  // namespace cartesian
