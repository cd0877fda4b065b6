#include "runtime/top/job_view.h"

#include <gtest/gtest.h>

#include "tests/runtime/top/job_readings.h"

namespace cartesian {
namespace {

JobHistory history_of(std::initializer_list<std::pair<int, double>> readings) {
  JobHistory history;
  for (const auto& [steps, at] : readings) {
    history.add(job_reading(steps, at));
  }
  return history;
}

TEST(JobView, RatesAreOverTheWindow) {
  // 10 steps of 1000 tokens in 4 s.
  const JobView view = make_job_view(history_of({{40, 100}, {44, 102}, {50, 104}}));
  EXPECT_EQ(view.window_s, 4);
  EXPECT_TRUE(view.moving);
  EXPECT_EQ(view.tokens_per_s, 2500);
  EXPECT_EQ(view.steps_per_s, 2.5);
  EXPECT_EQ(view.step_s, 0.5);
  EXPECT_EQ(view.exposed_share, 0.125);
  EXPECT_EQ(view.pivot_hit_rate, 0.9);
  ASSERT_EQ(view.traffic.size(), 2);
  EXPECT_EQ(view.traffic[0].scope, "intra");
  EXPECT_EQ(view.traffic[0].bytes_per_s, 0);
  EXPECT_EQ(view.traffic[0].rows_per_s, 250);
  EXPECT_EQ(view.traffic[1].bytes_per_s, 1.5e6);
  EXPECT_EQ(view.traffic[1].rows_per_s, 6250);
}

TEST(JobView, PhasesAreThoseThatTookTime) {
  const JobView view = make_job_view(history_of({{40, 100}, {50, 104}}));
  ASSERT_EQ(view.phases.size(), 3);
  EXPECT_EQ(view.phases[0].name, "attention");
  EXPECT_EQ(view.phases[0].share, 0.25);
  EXPECT_EQ(view.phases[1].share, 0.5);
  EXPECT_EQ(view.phases[1].step_s, 0.25);
}

TEST(JobView, LoadsAreTheWindows) {
  JobHistory history = history_of({{40, 100}});
  JobSnapshot next = job_reading(50, 104);
  next.experts[{0, "A"}].tokens[3] = 7;
  history.add(next);
  const JobView view = make_job_view(history);
  ASSERT_EQ(view.experts.size(), 2);
  EXPECT_EQ(view.experts[0].group, "A");
  EXPECT_EQ(view.experts[0].loads, (std::vector<double>{4000, 2000, 2000, 7}));
  EXPECT_EQ(view.experts[0].imbalance, 2);
  EXPECT_EQ(view.experts[0].rank_imbalance, 1.02);
  EXPECT_EQ(view.experts[0].colocation, 0.5);
  EXPECT_TRUE(view.experts[1].loads.empty());
}

TEST(JobView, SlowestRankFirst) {
  const JobView view = make_job_view(history_of({{40, 100}, {50, 104}}));
  ASSERT_EQ(view.ranks.size(), 2);
  EXPECT_EQ(view.ranks[0].rank, 1);
  EXPECT_EQ(view.ranks[0].host, "beta");
  EXPECT_EQ(view.ranks[0].compute_share, 1);
  EXPECT_EQ(view.ranks[0].waited_for_share, 0.25);
  EXPECT_EQ(view.ranks[1].rank, 0);
  EXPECT_EQ(view.ranks[1].compute_share, 0.75);
  EXPECT_EQ(view.ranks[1].wait_share, 0.25);
}

TEST(JobView, OneReadingHasNoRates) {
  const JobView view = make_job_view(history_of({{40, 100}}));
  EXPECT_EQ(view.window_s, 0);
  EXPECT_FALSE(view.moving);
  EXPECT_EQ(view.tokens_per_s, std::nullopt);
  EXPECT_EQ(view.traffic[1].bytes_per_s, std::nullopt);
  EXPECT_EQ(view.step_s, 0.5) << "since the job began";
  EXPECT_EQ(view.experts[0].loads[0], 16000);
}

TEST(JobView, WithoutAStepSharesAreSinceTheJobBegan) {
  const JobView view = make_job_view(history_of({{40, 100}, {40, 102}}));
  EXPECT_FALSE(view.moving);
  EXPECT_EQ(view.window_s, 2);
  EXPECT_EQ(view.tokens_per_s, 0);
  EXPECT_EQ(view.traffic[1].bytes_per_s, 0);
  EXPECT_EQ(view.phases[1].share, 0.5);
  EXPECT_EQ(view.ranks[0].compute_share, 1);
}

TEST(JobView, BeforeTheFirstStep) {
  const JobView view = make_job_view(history_of({{0, 100}, {0, 102}}));
  EXPECT_EQ(view.step_s, std::nullopt);
  EXPECT_EQ(view.exposed_share, std::nullopt);
  EXPECT_EQ(view.pivot_hit_rate, std::nullopt);
  EXPECT_EQ(view.ranks[0].compute_share, std::nullopt);
  EXPECT_TRUE(view.phases.empty());
}

TEST(JobView, ARestartIsNeverANegativeRate) {
  JobHistory history = history_of({{40, 100}, {50, 104}, {3, 106}});
  EXPECT_EQ(history.readings().size(), 1);
  history.add(job_reading(7, 108));
  const JobView view = make_job_view(history);
  EXPECT_EQ(view.tokens_per_s, 2000);
  EXPECT_EQ(view.steps_per_s, 2);
  EXPECT_EQ(view.experts[0].loads[0], 1600);
}

TEST(JobView, ACounterThatFallsAloneBeginsAnew) {
  JobHistory history = history_of({{40, 100}});
  JobSnapshot next = job_reading(50, 104);
  next.by_rank[0].compute_s = 2;  // not one of those that tell of a restart
  next.by_rank[0].wait_s = 6;     // 5 before
  history.add(next);
  EXPECT_EQ(make_job_view(history).ranks[1].compute_share, 2.0 / 3);
}

TEST(JobHistory, KeepsTheLastReadings) {
  JobHistory history;
  for (int i = 0; i < 25; ++i) {
    history.add(job_reading(i, i));
  }
  EXPECT_EQ(history.readings().size(), JobHistory::kReadings);
  EXPECT_EQ(history.readings().front().step, 15);
}

TEST(JobHistory, KeepsMoreWhereStepsAreSlow) {
  JobHistory history;
  for (int i = 0; i < 60; ++i) {
    history.add(job_reading(i / 20, i));
  }
  EXPECT_EQ(history.readings().front().step, 0);
  EXPECT_EQ(history.readings().front().at, Seconds(19));
  for (int i = 60; i < 500; ++i) {
    history.add(job_reading(2, i));
  }
  EXPECT_EQ(history.readings().size(), JobHistory::kMostReadings);
}

}  // namespace
}  // namespace cartesian
