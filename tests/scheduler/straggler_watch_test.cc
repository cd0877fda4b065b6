#include "scheduler/straggler_watch.h"

#include <gtest/gtest.h>

#include "tests/scheduler/sample_job.h"

namespace cartesian {
namespace {

/// Nodes 0, 1, 2 of one, one and two ranks.
class StragglerWatchTest : public testing::Test {
 protected:
  StragglerWatchTest() : shape_(testing_job::shape(4)) {
    shape_.node_of_rank = {0, 1, 2, 2};
    shape_.hosts = {"host0", "host1", "host2", "host2"};
    shape_.phases = {"attention", "experts"};
  }

  StepReport report(std::int64_t step) const {
    StepReport report = testing_job::report(shape_, 0, step);
    report.step_s = 1;
    report.wait_s = 0.25;
    report.phase_s = {0.25, 0.25};
    report.tokens = 64;
    report.waits_by_peer.assign(4, 0.0625);
    return report;
  }
  /// `slow`: computes for that much longer than 0.5 s.
  void add_step(StragglerWatch& watch, std::int64_t step, int slow = -1, double longer_s = 0) {
    for (int rank = 0; rank < 4; ++rank) {
      StepReport one = report(step);
      one.step_s += rank == slow ? longer_s : 0;
      watch.add(rank, one);
    }
  }

  JobShape shape_;
};

TEST_F(StragglerWatchTest, EvidenceOfAStep) {
  StepEvidence step(shape_);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_FALSE(step.complete());
    StepReport one = report(5);
    one.step_s = 1 + rank;
    one.tokens = 10 + rank;
    // Rank r waits (r + 1) * (peer + 1) for each.
    for (int peer = 0; peer < 4; ++peer) {
      one.waits_by_peer[static_cast<std::size_t>(peer)] = (rank + 1) * (peer + 1);
    }
    step.add(rank, one);
    one.step_s = 100;
    step.add(rank, one);  // told before
  }
  ASSERT_TRUE(step.complete());
  const StragglerEvidence evidence = step.evidence();
  EXPECT_EQ(evidence.step_s, 2.5);
  EXPECT_EQ(evidence.compute_s, (std::vector<double>{0.5, 1.5, 2.5, 3.5}));
  EXPECT_EQ(evidence.tokens, (std::vector<double>{10, 11, 12, 13}));
  // Ranks 2 and 3 wait 3 * (1 + 2) and 4 * (1 + 2) for the other two, which wait as long for them.
  EXPECT_EQ(evidence.nodes[2].of_it, 21.0 / 4);
  EXPECT_EQ(evidence.nodes[2].for_it, 21.0 / 4);
  EXPECT_EQ(evidence.nodes[2].elsewhere, 2);  // ranks 0 and 1 for each other
  EXPECT_EQ(evidence.nodes[0].of_it, (2 + 3 + 4) / 3.0);
  EXPECT_EQ(evidence.nodes[0].elsewhere, (2 * 3 + 2 * 4) / 2.0);  // rank 1 with 2 and 3
}

TEST_F(StragglerWatchTest, WithoutThePhaseAllComputingCounts) {
  shape_.phases = {"attention", "other"};
  StepEvidence step(shape_);
  for (int rank = 0; rank < 4; ++rank) {
    step.add(rank, report(0));
  }
  EXPECT_EQ(step.evidence().compute_s, std::vector<double>(4, 0.75));
}

TEST_F(StragglerWatchTest, ATypicalStepIsTheMeanOfTheMiddleHalf) {
  std::deque<StragglerEvidence> steps;
  for (const double value : {100, 2, 0, 4, 1, 3, 50, 5}) {
    StragglerEvidence step;
    step.step_s = value;
    step.compute_s = {10 * value};
    step.tokens = {value};
    step.nodes = {{value, 2 * value, 3 * value}};
    steps.push_back(step);
  }
  const StragglerEvidence result = typical(steps);
  EXPECT_EQ(result.step_s, 3.5);  // 2 3 4 5
  EXPECT_EQ(result.compute_s, std::vector<double>{35});
  EXPECT_EQ(result.tokens, std::vector<double>{3.5});
  EXPECT_EQ(result.nodes[0].of_it, 3.5);
  EXPECT_EQ(result.nodes[0].for_it, 7);
  EXPECT_EQ(result.nodes[0].elsewhere, 10.5);
}

TEST_F(StragglerWatchTest, ASlowRankIsNamedAndForgottenAgain) {
  StragglerWatch watch(shape_);
  std::int64_t step = 0;
  while (step < 20) {
    add_step(watch, step++);
  }
  EXPECT_TRUE(watch.named().empty());
  // Of eight steps four are in the middle: one slow in them is 1.5 times the median, and once more.
  for (int slow = 1; slow <= 4; ++slow) {
    EXPECT_TRUE(watch.named().empty()) << slow;
    add_step(watch, step++, 2, 1);
  }
  ASSERT_EQ(watch.named().size(), 1U);
  EXPECT_EQ(watch.named()[0].kind, Straggler::Kind::rank);
  EXPECT_EQ(watch.named()[0].number, 2);
  EXPECT_EQ(watch.named()[0].factor, 2);  // two of the middle four took three times as long
  for (int slow = 0; slow < 10; ++slow) {
    add_step(watch, step++, 2, 1);
  }
  EXPECT_EQ(watch.named()[0].factor, 3);
  int steps = 0;
  while (!watch.named().empty()) {
    add_step(watch, step++);
    ASSERT_LE(++steps, 20);
  }
  EXPECT_EQ(steps, 6 + StragglerWatch::kGone - 1);  // six until none of the middle four is slow
}

TEST_F(StragglerWatchTest, HiccupsAreNotNamed) {
  StragglerWatch watch(shape_);
  for (std::int64_t step = 0; step < 80; ++step) {
    if (step % 8 < 2) {
      add_step(watch, step, 1, 100);
    } else {
      add_step(watch, step);
    }
    EXPECT_TRUE(watch.named().empty()) << step;
  }
}

TEST_F(StragglerWatchTest, StepsThatLackAReportDoNotCount) {
  StragglerWatch watch(shape_);
  for (std::int64_t step = 0; step < 100; ++step) {
    for (int rank = 0; rank < 3; ++rank) {
      StepReport one = report(step);
      one.step_s += rank == 1 ? 1 : 0;
      watch.add(rank, one);
    }
  }
  EXPECT_TRUE(watch.named().empty());
  for (std::int64_t step = 100; step < 109; ++step) {
    add_step(watch, step, 1, 1);
  }
  EXPECT_EQ(watch.named().size(), 1U);
}

TEST_F(StragglerWatchTest, WhoWasNamedIsForgottenWhenReportsAreMissing) {
  StragglerWatch watch(shape_);
  std::int64_t step = 0;
  while (step < 20) {
    add_step(watch, step++, 1, 1);
  }
  ASSERT_EQ(watch.named().size(), 1U);
  EXPECT_FALSE(watch.blind());
  const auto add_without_last = [&] {
    for (int rank = 0; rank < 3; ++rank) {
      watch.add(rank, report(step));
    }
    ++step;
  };
  for (int i = 0; i < 30; ++i) {  // now and then one is missing, which a full step makes good
    add_without_last();
    add_step(watch, step++, 1, 1);
  }
  EXPECT_EQ(watch.named().size(), 1U);
  int steps = 0;
  while (!watch.named().empty()) {
    EXPECT_FALSE(watch.blind());
    add_without_last();
    ASSERT_LE(++steps, 40);
  }
  EXPECT_TRUE(watch.blind());
  for (int i = 0; i < 100; ++i) {
    add_without_last();
  }
  EXPECT_TRUE(watch.named().empty());
  for (int i = 0; i < 9; ++i) {  // all are heard again
    EXPECT_TRUE(watch.named().empty()) << i;
    add_step(watch, step++, 1, 1);
    EXPECT_FALSE(watch.blind());
  }
  EXPECT_EQ(watch.named().size(), 1U);
}

}  // namespace
}  // namespace cartesian
