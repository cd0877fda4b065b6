// A coordinator and its agents over loopback TCP. Every wait has a deadline; none asserts on time.

#include "scheduler/coordinator.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "base/error.h"
#include "scheduler/agent.h"
#include "scheduler/asio_internal.h"
#include "scheduler/report_window.h"
#include "tests/scheduler/sample_job.h"
#include "tests/support/expect_error.h"

namespace cartesian {
namespace {

constexpr int kRanks = 8;
constexpr Seconds kPatience{30};

/// Waits until `holds`, and fails if it never does.
template <class Condition>
void await(Condition holds, const char* what) {
  const SteadyClock clock;
  const Seconds limit = clock.now() + kPatience;
  while (!holds()) {
    if (clock.now() > limit) {
      FAIL() << "not within " << kPatience.count() << " s: " << what;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

class CoordinatorTest : public ::testing::Test {
 protected:
  std::unique_ptr<Coordinator> coordinator(CoordinatorOptions options = {}) const {
    return std::make_unique<Coordinator>(options, testing_job::shape(kRanks), secret_);
  }

  AgentOptions options(int rank, std::uint16_t port) const {
    AgentOptions options;
    options.port = port;
    options.rank = rank;
    options.ranks = kRanks;
    options.host = "host" + std::to_string(rank / 2);
    options.heartbeat = Seconds{0.1};
    options.backoff = Seconds{0.02};
    options.max_backoff = Seconds{0.2};
    return options;
  }

  void start_agents(std::uint16_t port) {
    for (int rank = 0; rank < kRanks; ++rank) {
      agents_.push_back(std::make_unique<Agent>(options(rank, port), secret_));
    }
  }

  static std::vector<int> in_health(const Coordinator& coordinator, RankHealth health) {
    std::vector<int> ranks;
    coordinator.inspect([&](const JobState& state) { ranks = state.in_health(health); });
    return ranks;
  }

  static void await_health(const Coordinator& coordinator, RankHealth health, std::size_t count) {
    await([&] { return in_health(coordinator, health).size() == count; }, "the ranks' health");
  }

  static bool has_trouble(const Coordinator& coordinator, const std::string& text) {
    for (const std::string& trouble : coordinator.last_troubles()) {
      if (trouble.find(text) != std::string::npos) {
        return true;
      }
    }
    return false;
  }

  JobSecret secret_ = JobSecret::random();
  std::vector<std::unique_ptr<Agent>> agents_;
};

TEST_F(CoordinatorTest, ReportsArriveAndRanksFinish) {
  const JobShape shape = testing_job::shape(kRanks);
  ReportWindow window(shape);
  const auto coordinator = this->coordinator();
  coordinator->observe([&](int rank, const StepReport& report) { window.add(rank, report); });
  start_agents(coordinator->port());
  for (std::int64_t step = 0; step < 20; ++step) {  // some before they are registered
    for (int rank = 0; rank < kRanks; ++rank) {
      agents_[static_cast<std::size_t>(rank)]->report(testing_job::report(shape, rank, step));
    }
  }
  for (auto& agent : agents_) {
    EXPECT_TRUE(agent->finish(0, "trained", kPatience));
    EXPECT_EQ(agent->status().sent, 20);
    EXPECT_EQ(agent->status().dropped, 0);
  }
  EXPECT_EQ(in_health(*coordinator, RankHealth::finished).size(), kRanks);
  coordinator->observe(nullptr);
  EXPECT_EQ(window.reports, 20 * kRanks);
  EXPECT_EQ(window.last_step, 19);
  EXPECT_EQ(coordinator->troubles(), 0);
}

TEST_F(CoordinatorTest, ItsStandingWaitsForNobodyWhoLooksAtTheState) {
  CoordinatorOptions options;
  options.job.absent = Seconds{-1};
  const auto coordinator = this->coordinator(options);
  const JobShape shape = testing_job::shape(kRanks);
  start_agents(coordinator->port());
  for (std::int64_t step = 0; step < 12; ++step) {
    for (int rank = 0; rank < kRanks; ++rank) {
      StepReport report = testing_job::report(shape, rank, step);
      report.step_s += rank == 0 ? 50 : 0;
      agents_[static_cast<std::size_t>(rank)]->report(std::move(report));
    }
  }
  await([&] { return !coordinator->standing().stragglers.empty(); }, "rank 0 is named");
  JobStanding standing;
  coordinator->inspect([&](const JobState& /*state*/) { standing = coordinator->standing(); });
  ASSERT_EQ(standing.stragglers.size(), 1U);
  EXPECT_EQ(standing.stragglers[0].number, 0);
  EXPECT_FALSE(standing.blind);
  EXPECT_EQ(standing.overdue, std::vector<int>{});  // all have come
}

/// Ranks go through steps one after the other, as a collective would have them.
TEST_F(CoordinatorTest, CommandsTakeEffectAtTheAgreedStep) {
  CoordinatorOptions options;
  options.job.margin = 5;
  const auto coordinator = this->coordinator(options);
  start_agents(coordinator->port());
  await_health(*coordinator, RankHealth::alive, kRanks);
  const JobShape shape = testing_job::shape(kRanks);
  std::uint64_t id = 0;
  std::int64_t at_step = -1;
  std::vector<std::int64_t> taken_at;
  for (std::int64_t step = 0; step < 30; ++step) {
    if (step == 10) {
      await(
          [&] {
            std::int64_t known = -1;
            coordinator->inspect([&](const JobState& state) { known = state.step(); });
            return known == 9;
          },
          "the reports of step 9");
      id = coordinator->command("replan", "{\"a\": 1}");
      await(
          [&] {
            bool reached = false;
            coordinator->inspect([&](const JobState& state) {
              reached = state.commands().find(id)->reached_all();
              at_step = state.commands().find(id)->command.at_step;
            });
            return reached;
          },
          "all acknowledge");
    }
    for (int rank = 0; rank < kRanks; ++rank) {
      Agent& agent = *agents_[static_cast<std::size_t>(rank)];
      while (const auto command = agent.take_command(step)) {
        EXPECT_EQ(command->kind, "replan");
        EXPECT_EQ(command->payload, "{\"a\": 1}");
        taken_at.push_back(step);
      }
      agent.report(testing_job::report(shape, rank, step));
    }
  }
  EXPECT_EQ(at_step, 14);
  EXPECT_EQ(taken_at, std::vector<std::int64_t>(kRanks, 14));
}

TEST_F(CoordinatorTest, ALateCommandIsNotHandedOut) {
  const auto coordinator = this->coordinator();
  start_agents(coordinator->port());
  await_health(*coordinator, RankHealth::alive, kRanks);
  EXPECT_EQ(agents_[2]->take_command(0), std::nullopt);
  EXPECT_EQ(agents_[2]->take_command(1'000'000), std::nullopt);  // without a word to anybody
  agents_[2]->take_command(2'000'000);
  std::uint64_t id = 0;
  std::vector<int> late;
  // Heartbeats may tell the step in time; without one the command is late on rank 2.
  id = coordinator->command("replan", "");
  await(
      [&] {
        bool reached = false;
        coordinator->inspect([&](const JobState& state) {
          reached = state.commands().find(id)->reached_all();
          late = state.commands().find(id)->late;
        });
        return reached;
      },
      "all acknowledge");
  std::int64_t at_step = 0;
  coordinator->inspect(
      [&](const JobState& state) { at_step = state.commands().find(id)->command.at_step; });
  EXPECT_EQ(late, at_step == 3 ? std::vector<int>{2} : std::vector<int>{});
}

TEST_F(CoordinatorTest, ADyingRankIsNamedAndCostsOthersNothing) {
  const auto coordinator = this->coordinator();
  start_agents(coordinator->port());
  await_health(*coordinator, RankHealth::alive, kRanks);
  agents_[5].reset();
  await_health(*coordinator, RankHealth::lost, 1);
  EXPECT_EQ(in_health(*coordinator, RankHealth::lost), std::vector<int>{5});
  EXPECT_TRUE(has_trouble(*coordinator, "rank 5 (host2): the connection broke"));
  EXPECT_EQ(in_health(*coordinator, RankHealth::alive).size(), kRanks - 1);
}

TEST_F(CoordinatorTest, AgentsReturnToANewCoordinator) {
  auto coordinator = this->coordinator();
  const std::uint16_t port = coordinator->port();
  start_agents(port);
  await_health(*coordinator, RankHealth::alive, kRanks);
  const std::uint64_t old_id = coordinator->command("replan", "old");
  coordinator.reset();
  const JobShape shape = testing_job::shape(kRanks);
  for (int i = 0; i < 100; ++i) {  // more than the queue holds
    agents_[0]->report(testing_job::report(shape, 0, i));
  }
  await([&] { return !agents_[0]->status().registered; }, "the loss is noticed");
  EXPECT_GE(agents_[0]->status().dropped, 1);
  CoordinatorOptions options;
  options.port = port;
  coordinator = this->coordinator(options);
  await_health(*coordinator, RankHealth::alive, kRanks);
  EXPECT_NE(coordinator->command("replan", "new"), old_id);
  await([&] { return agents_[0]->status().sent >= 1; }, "reports go on");
  EXPECT_TRUE(agents_[0]->finish(0, "", kPatience));
  const AgentStatus status = agents_[0]->status();
  EXPECT_EQ(status.registrations, 2);
  EXPECT_EQ(status.sent + status.dropped, 100);
}

TEST_F(CoordinatorTest, StrangersAndDuplicatesCostNobodyAnything) {
  CoordinatorOptions options;
  options.strangers = 8;
  const auto coordinator = this->coordinator(options);
  start_agents(coordinator->port());
  await_health(*coordinator, RankHealth::alive, kRanks);

  const Agent thief(this->options(3, coordinator->port()), JobSecret::random());
  const Agent twin(this->options(3, coordinator->port()), secret_);
  await([&] { return thief.status().trouble.find("the secret is not") != std::string::npos; },
        "the wrong secret is refused");
  await([&] { return twin.status().trouble.find("rank 3 is registered") != std::string::npos; },
        "the duplicate is refused");

  asio::io_context io;
  const tcp::endpoint endpoint(asio::ip::make_address("127.0.0.1"), coordinator->port());
  std::vector<tcp::socket> strangers;
  for (int i = 0; i < 100; ++i) {
    tcp::socket socket(io);
    socket.connect(endpoint);
    error_code ignored;
    if (i % 2 == 0) {
      asio::write(socket, asio::buffer(std::string(100'000, 'x')), ignored);
    }
    strangers.push_back(std::move(socket));
  }
  await([&] { return coordinator->troubles() >= 84; }, "strangers are turned out");
  Agent& agent = *agents_[7];
  agent.report(testing_job::report(testing_job::shape(kRanks), 7, 3));
  EXPECT_TRUE(agent.finish(0, "", kPatience));
  EXPECT_EQ(in_health(*coordinator, RankHealth::alive).size(), kRanks - 1);
  for (const auto& member : agents_) {
    EXPECT_EQ(member->status().registrations, 1);
  }
}

TEST_F(CoordinatorTest, AgentsWithoutACoordinatorWaitForNothing) {
  std::uint16_t port = 0;
  { port = coordinator()->port(); }  // nobody listens there now
  Agent agent(options(1, port), secret_);
  for (int i = 0; i < 1000; ++i) {
    agent.report(testing_job::report(testing_job::shape(kRanks), 1, i));
    EXPECT_EQ(agent.take_command(i), std::nullopt);
  }
  await([&] { return !agent.status().trouble.empty(); }, "the failure is told");
  EXPECT_NE(agent.status().trouble.find("rank 1 (host0): no connection to the coordinator"),
            std::string::npos);
  EXPECT_FALSE(agent.finish(0, "", Seconds{0.01}));
  EXPECT_EQ(agent.status().dropped, 1000 - 64);
}

/// It accepts, and then says nothing.
TEST_F(CoordinatorTest, AMuteCoordinatorRunsIntoTheDeadline) {
  asio::io_context io;
  const tcp::acceptor mute(io, tcp::endpoint(asio::ip::make_address("127.0.0.1"), 0));
  AgentOptions options = this->options(1, mute.local_endpoint().port());
  options.session.handshake = Seconds{0.2};
  const Agent agent(options, secret_);
  await([&] { return agent.status().trouble.find("no challenge within") != std::string::npos; },
        "the deadline is told");
}

TEST_F(CoordinatorTest, PlacesThatCannotBeAreNamed) {
  const auto coordinator = this->coordinator();
  CoordinatorOptions taken;
  taken.port = coordinator->port();
  expect_error<ConfigError>([&] { this->coordinator(taken); },
                            {"127.0.0.1", std::to_string(taken.port), "in use"});
  CoordinatorOptions nowhere;
  nowhere.address = "nowhere";
  expect_error<ConfigError>([&] { this->coordinator(nowhere); }, {"nowhere"});
  AgentOptions options = this->options(0, 1);
  options.address = "node one";
  expect_error<ConfigError>([&] { Agent(options, secret_); }, {"node one"});
}

}  // namespace
}  // namespace cartesian
