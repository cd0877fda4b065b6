#include "scheduler/job_state.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/error.h"
#include "scheduler/report_window.h"
#include "tests/scheduler/sample_job.h"

namespace cartesian {
namespace {

using Ranks = std::vector<int>;

class JobStateTest : public ::testing::Test {
 protected:
  static constexpr int kRanks = 4;

  void admit_all() {
    for (int rank = 0; rank < kRanks; ++rank) {
      const Admission admission = state_.admit(hello(rank), connection(rank));
      EXPECT_EQ(admission.refusal, "");
      EXPECT_EQ(admission.replaced, 0U);
    }
  }
  static Hello hello(int rank, std::uint64_t instance = 7) {
    return testing_job::hello(rank, kRanks, instance);
  }
  static std::uint64_t connection(int rank) { return static_cast<std::uint64_t>(rank) + 1; }

  FakeClock clock_;
  JobShape shape_ = testing_job::shape(kRanks);
  JobState state_{shape_, clock_, JobLimits{}, 100};
};

TEST_F(JobStateTest, HealthFollowsWhatIsHeard) {
  EXPECT_EQ(state_.in_health(RankHealth::absent), (Ranks{0, 1, 2, 3}));
  admit_all();
  EXPECT_EQ(state_.in_health(RankHealth::alive), (Ranks{0, 1, 2, 3}));
  state_.goodbye(3, Goodbye{0, "done"});
  state_.disconnect(3, connection(3), "said goodbye");
  state_.disconnect(2, connection(2), "reset by peer");
  clock_.advance(Seconds{4});
  state_.heartbeat(0, Heartbeat{2});
  clock_.advance(Seconds{2});
  EXPECT_EQ(state_.health(0), RankHealth::alive);
  EXPECT_EQ(state_.health(1), RankHealth::late);
  EXPECT_EQ(state_.health(2), RankHealth::lost);
  EXPECT_EQ(state_.health(3), RankHealth::finished);
  EXPECT_EQ(state_.rank(2).cause, "reset by peer");
  clock_.advance(Seconds{25});
  EXPECT_EQ(state_.in_health(RankHealth::dead), (Ranks{1, 2}));
  EXPECT_EQ(state_.health(0), RankHealth::late);
  state_.heartbeat(1, Heartbeat{2});
  EXPECT_EQ(state_.health(1), RankHealth::alive);
}

TEST_F(JobStateTest, ARankThatSaysThatItFailedIsDead) {
  admit_all();
  const std::vector<std::int32_t> codes = {0, 75, 1, 137};
  for (int rank = 0; rank < kRanks; ++rank) {
    EXPECT_FALSE(state_.over());
    state_.goodbye(rank, Goodbye{codes[static_cast<std::size_t>(rank)], "so it is"});
    state_.disconnect(rank, connection(rank), "said goodbye");
  }
  EXPECT_TRUE(state_.over());
  EXPECT_EQ(state_.in_health(RankHealth::finished), (Ranks{0, 1}));
  EXPECT_EQ(state_.in_health(RankHealth::dead), (Ranks{2, 3}));
  EXPECT_EQ(state_.admit(hello(2, 8), 50).refusal, "");  // started anew
  EXPECT_EQ(state_.health(2), RankHealth::alive);
  EXPECT_FALSE(state_.over());
}

TEST_F(JobStateTest, RanksThatNeverCameAreOverdueInTheEnd) {
  state_.admit(hello(2), connection(2));
  clock_.advance(Seconds{10});
  EXPECT_EQ(state_.overdue(), Ranks{});
  clock_.advance(Seconds{0.5});
  EXPECT_EQ(state_.overdue(), (Ranks{0, 1, 3}));
  EXPECT_EQ(list_ranks(state_.overdue(), shape_), "rank 0 (host0), 1 (host0), 3 (host1)");
  state_.admit(hello(0), connection(0));
  state_.disconnect(2, connection(2), "reset by peer");  // lost, but it was here
  clock_.advance(Seconds{60});
  EXPECT_EQ(state_.overdue(), (Ranks{1, 3}));
  const JobShape many = testing_job::shape(100);
  Ranks all(100);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_TRUE(list_ranks(all, many).ends_with("7 (host3) and 92 more"));
}

TEST_F(JobStateTest, DuplicatesAreRefusedAndTheSameProcessReturns) {
  admit_all();
  const Admission duplicate = state_.admit(hello(1, 8), 50);
  EXPECT_NE(duplicate.refusal.find("rank 1 is registered by process 1001 on host0"),
            std::string::npos);
  EXPECT_EQ(state_.rank(1).connection, connection(1));

  const Admission again = state_.admit(hello(1), 51);
  EXPECT_EQ(again.refusal, "");
  EXPECT_EQ(again.replaced, connection(1));
  state_.disconnect(1, connection(1), "replaced");  // the old one's end changes nothing
  EXPECT_EQ(state_.health(1), RankHealth::alive);

  state_.disconnect(1, 51, "reset by peer");
  EXPECT_EQ(state_.admit(hello(1, 9), 52).refusal, "");  // a new process after the old one's end
  EXPECT_EQ(state_.rank(1).registrations, 3);
}

TEST_F(JobStateTest, ObserversSeeReportsOnceAndWindowsSumThem) {
  admit_all();
  ReportWindow window(shape_);
  state_.observe([&](int rank, const StepReport& report) { window.add(rank, report); });
  for (std::int64_t step = 3; step < 5; ++step) {
    for (int rank = 0; rank < kRanks; ++rank) {
      for (int times = 0; times < 2; ++times) {
        EXPECT_EQ(state_.report(rank, testing_job::report(shape_, rank, step)), "");
      }
    }
  }
  EXPECT_EQ(window.reports, 8);
  EXPECT_EQ(window.first_step, 3);
  EXPECT_EQ(window.last_step, 4);
  EXPECT_EQ(window.tokens, 2 * (100 + 101 + 102 + 103));
  EXPECT_EQ(window.inter_bytes, 16'000);
  EXPECT_EQ(window.pivot_hits, 48);
  EXPECT_EQ(window.phase_s, std::vector<double>(4, 1.0));
  EXPECT_EQ(window.step_s, (std::vector<double>{2, 4, 6, 8}));
  EXPECT_EQ(window.wait_s, (std::vector<double>{0, 0.5, 1, 1.5}));
  EXPECT_EQ(window.waited_for_s, std::vector<double>(4, 4.0));
  EXPECT_TRUE(window.co_activation.empty());
  for (std::size_t i = 0; i < window.loads.size(); ++i) {
    EXPECT_EQ(window.loads[i], 8.0 * static_cast<double>(i));
  }
  EXPECT_EQ(state_.rank(2).latest->step, 4);
  EXPECT_EQ(state_.step(), 4);
}

TEST_F(JobStateTest, ReportsOfAnotherShapeAreIgnored) {
  admit_all();
  bool seen = false;
  state_.observe([&](int /*rank*/, const StepReport& /*report*/) { seen = true; });
  StepReport report = testing_job::report(shape_, 1, 900);
  report.loads.pop_back();
  EXPECT_NE(state_.report(1, report), "");
  EXPECT_FALSE(seen);
  EXPECT_EQ(state_.rank(1).latest, std::nullopt);
  EXPECT_EQ(state_.step(), -1);
}

TEST_F(JobStateTest, CommandsComeAfterEveryKnownStep) {
  EXPECT_EQ(state_.command("replan", "").at_step, 3);  // before any step is known
  admit_all();
  state_.heartbeat(0, Heartbeat{10});
  state_.report(3, testing_job::report(shape_, 3, 12));
  state_.heartbeat(3, Heartbeat{11});
  const Command command = state_.command("replan", "{}");
  EXPECT_EQ(command.id, 101U);
  EXPECT_EQ(command.at_step, 15);
  EXPECT_EQ(state_.command("replan", "{}", 14).at_step, 15);
  EXPECT_EQ(state_.command("replan", "{}", 90).at_step, 90);
}

TEST_F(JobStateTest, KnowsWhoHasACommand) {
  admit_all();
  const std::uint64_t id = state_.command("replan", "{}").id;
  for (const int rank : {0, 2, 3}) {
    state_.acknowledge(rank, Ack{id, rank != 2});
    state_.acknowledge(rank, Ack{id, rank != 2});
  }
  EXPECT_EQ(state_.commands().find(id)->acknowledgements, 3);
  EXPECT_FALSE(state_.commands().find(id)->reached_all());
  EXPECT_EQ(state_.commands().owed(1).size(), 1U);
  EXPECT_TRUE(state_.commands().owed(0).empty());
  clock_.advance(Seconds{0.5});
  state_.acknowledge(1, Ack{id, true});
  state_.acknowledge(1, Ack{999, true});
  EXPECT_TRUE(state_.commands().find(id)->reached_all());
  EXPECT_EQ(state_.commands().find(id)->late, Ranks{2});
  EXPECT_EQ(state_.commands().find(id)->complete.count(), 0.5);
}

TEST_F(JobStateTest, CommandsAreBounded) {
  EXPECT_THROW(state_.command(std::string(65, 'k'), ""), ConfigError);
  EXPECT_THROW(state_.command("k", std::string(Command::kMaxPayload + 1, 'p')), ConfigError);
  const std::uint64_t first = state_.command("k", "").id;
  for (std::size_t i = 0; i < CommandLog::kKept; ++i) {
    state_.command("k", "");
  }
  EXPECT_EQ(state_.commands().find(first), nullptr);
  EXPECT_EQ(state_.commands().owed(0).size(), CommandLog::kKept);
}

}  // namespace
}  // namespace cartesian
