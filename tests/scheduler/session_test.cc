// Both halves of the protocol in memory, with a clock that the test owns.

#include "scheduler/session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "scheduler/agent_session.h"
#include "scheduler/coordinator_session.h"
#include "tests/scheduler/sample_job.h"

namespace cartesian {
namespace {

constexpr int kRanks = 4;

class SessionTest : public ::testing::Test {
 protected:
  CoordinatorSession coordinator() {
    return {secret_, kRanks, random_nonce(), limits_, clock_.now()};
  }
  AgentSession agent(int rank = 1) {
    return {secret_, testing_job::hello(rank, kRanks), limits_, clock_.now()};
  }

  /// Carries bytes both ways until there are none; admits whoever has the secret. `piece`: at most
  /// so many bytes at once.
  std::vector<CoordinatorEvent> carry(AgentSession& agent, CoordinatorSession& coordinator,
                                      std::size_t piece = std::numeric_limits<std::size_t>::max()) {
    std::vector<CoordinatorEvent> all;
    for (bool moved = true; moved;) {
      const bool there = pump(agent, coordinator, piece);
      for (auto events = coordinator.take_events(); !events.empty();
           events = coordinator.take_events()) {
        for (CoordinatorEvent& event : events) {
          if (std::holds_alternative<Hello>(event)) {
            coordinator.admit(clock_.now());
          }
          all.push_back(std::move(event));
        }
      }
      moved = pump(coordinator, agent, piece) || there;
    }
    return all;
  }

  bool pump(Session& from, Session& to, std::size_t piece) {
    const std::string bytes = from.take_output();
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t size = std::min(piece, bytes.size() - at);
      to.receive(std::string_view(bytes).substr(at, size), clock_.now());
      at += size;
    }
    return !bytes.empty();
  }

  /// Whether `bytes` alone end a new coordinator's session, which then says `why`.
  void expect_refused(std::string_view bytes, std::string_view why) {
    CoordinatorSession session = coordinator();
    session.receive(bytes, clock_.now());
    EXPECT_TRUE(session.ended()) << why;
    EXPECT_NE(session.ending().find(why), std::string::npos) << session.ending();
    EXPECT_TRUE(session.take_events().empty());
  }

  FakeClock clock_;
  JobSecret secret_ = JobSecret::random();
  SessionLimits limits_;
};

TEST_F(SessionTest, RegistersAndTalks) {
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{100'000}}) {
    AgentSession agent = this->agent();
    CoordinatorSession coordinator = this->coordinator();
    const auto first = carry(agent, coordinator, piece);
    ASSERT_EQ(first.size(), 1U);
    EXPECT_EQ(std::get<Hello>(first[0]).rank, 1);
    EXPECT_TRUE(agent.registered() && coordinator.registered());

    const StepReport report = testing_job::report(testing_job::shape(kRanks), 1, 5);
    coordinator.set_step(41);
    coordinator.send(Command{9, 50, "replan", "{}"});
    agent.send(Heartbeat{5});
    agent.send(report);
    agent.send(Ack{9, true});
    agent.send(Goodbye{0, "done"});
    const auto events = carry(agent, coordinator, piece);
    ASSERT_EQ(events.size(), 4U);
    EXPECT_EQ(std::get<Heartbeat>(events[0]).step, 5);
    EXPECT_EQ(std::get<StepReport>(events[1]), report);
    EXPECT_EQ(std::get<Ack>(events[2]), (Ack{9, true}));
    EXPECT_EQ(std::get<Goodbye>(events[3]), (Goodbye{0, "done"}));
    EXPECT_TRUE(coordinator.ended());
    EXPECT_EQ(agent.job_step(), 41);
    const auto commands = agent.take_commands();
    ASSERT_EQ(commands.size(), 1U);
    EXPECT_EQ(commands[0], (Command{9, 50, "replan", "{}"}));
  }
}

TEST_F(SessionTest, AWrongSecretIsRefused) {
  const JobSecret other = JobSecret::random();
  AgentSession agent(other, testing_job::hello(1, kRanks), limits_, clock_.now());
  CoordinatorSession coordinator = this->coordinator();
  EXPECT_TRUE(carry(agent, coordinator).empty());
  EXPECT_TRUE(agent.ended() && coordinator.ended());
  EXPECT_NE(agent.ending().find("the secret is not this job's"), std::string::npos);
}

/// It lets everybody in, but cannot prove that it is the job's.
TEST_F(SessionTest, AFalseCoordinatorIsLeft) {
  AgentSession agent = this->agent();
  agent.take_output();
  agent.receive(to_frame(MessageKind::challenge, Challenge{random_nonce()}), clock_.now());
  agent.receive(to_frame(MessageKind::welcome, Welcome{random_nonce()}), clock_.now());
  EXPECT_TRUE(agent.ended());
  EXPECT_NE(agent.ending().find("does not know the job's secret"), std::string::npos);

  AgentSession other = this->agent();
  other.receive(to_frame(MessageKind::welcome, Welcome{random_nonce()}), clock_.now());
  EXPECT_TRUE(other.ended());
}

/// Its own proof is no proof of the coordinator's.
TEST_F(SessionTest, AReflectedProofIsRefused) {
  AgentSession agent = this->agent();
  agent.take_output();
  agent.receive(to_frame(MessageKind::challenge, Challenge{random_nonce()}), clock_.now());
  FrameBuffer buffer;
  buffer.append(agent.take_output());
  const Proof proof = Proof::decode(buffer.next(kStrangerFrame)->payload);
  agent.receive(to_frame(MessageKind::welcome, Welcome{proof.proof}), clock_.now());
  EXPECT_FALSE(agent.registered());
}

TEST_F(SessionTest, AReplayIsRefused) {
  AgentSession agent = this->agent();
  CoordinatorSession first = coordinator();
  std::string recorded = agent.take_output();
  first.receive(recorded, clock_.now());
  agent.receive(first.take_output(), clock_.now());
  const std::string proof = agent.take_output();
  recorded += proof;
  first.receive(proof, clock_.now());
  ASSERT_EQ(first.take_events().size(), 1U);
  expect_refused(recorded, "the secret is not this job's");
}

TEST_F(SessionTest, OtherVersionsAreRefusedByName) {
  Hello hello = testing_job::hello(1, kRanks);
  hello.version = 9;
  expect_refused(to_frame(MessageKind::hello, hello), "protocol version 9");
}

TEST_F(SessionTest, RanksOutOfRangeAreRefused) {
  for (const auto& [rank, ranks] : {std::pair{4, 4}, {-1, 4}, {1, 5}}) {
    AgentSession agent(secret_, testing_job::hello(rank, ranks), limits_, clock_.now());
    CoordinatorSession coordinator = this->coordinator();
    EXPECT_TRUE(carry(agent, coordinator).empty());
    EXPECT_NE(agent.ending().find("where the job has 4 ranks"), std::string::npos);
  }
}

TEST_F(SessionTest, RefusalsAreTold) {
  AgentSession agent = this->agent();
  CoordinatorSession coordinator = this->coordinator();
  pump(agent, coordinator, 100);
  pump(coordinator, agent, 100);
  pump(agent, coordinator, 100);
  coordinator.refuse("rank 1 is registered already");
  pump(coordinator, agent, 100);
  EXPECT_NE(agent.ending().find("refused: rank 1 is registered already"), std::string::npos);
}

TEST_F(SessionTest, StrangersAreRefused) {
  expect_refused("GET / HTTP/1.1\r\n\r\n", "a frame of");
  expect_refused(make_frame(0, ""), "kind 0");
  expect_refused(make_frame(255, "xyz"), "kind 255");
  expect_refused(to_frame(MessageKind::heartbeat, Heartbeat{1}), "kind 6");
  expect_refused(to_frame(MessageKind::proof, Proof{}), "kind 3");
  expect_refused(make_frame(1, std::string(1, char{kProtocolVersion})), "hello: rank is cut short");
  expect_refused(make_frame(1, ""), "hello: version is cut short");
  expect_refused(std::string("\xff\xff\xff\x7f", 4), "a frame of");
}

TEST_F(SessionTest, MembersMustKeepToTheProtocol) {
  for (const std::string& bytes :
       {make_frame(7, "short"), make_frame(1, ""), to_frame(MessageKind::command, Command{}),
        std::string("\xff\xff\xff\x7f", 4)}) {
    AgentSession agent = this->agent();
    CoordinatorSession coordinator = this->coordinator();
    carry(agent, coordinator);
    coordinator.receive(bytes, clock_.now());
    EXPECT_TRUE(coordinator.ended());
    EXPECT_NE(coordinator.ending().find("rank 1 (host0)"), std::string::npos);
  }
}

TEST_F(SessionTest, SlowPeersRunIntoTheDeadline) {
  CoordinatorSession silent = coordinator();
  CoordinatorSession trickling = coordinator();
  const std::string hello = to_frame(MessageKind::hello, testing_job::hello(1, kRanks));
  for (std::size_t i = 0; i < 60; ++i) {
    clock_.advance(Seconds{0.1});
    trickling.receive(hello.substr(i, 1), clock_.now());
    silent.tick(clock_.now());
    trickling.tick(clock_.now());
  }
  EXPECT_NE(silent.ending().find("no hello within 5 s"), std::string::npos) << silent.ending();
  EXPECT_NE(trickling.ending().find("no hello within 5 s"), std::string::npos);

  CoordinatorSession stuck = coordinator();
  stuck.receive(hello, clock_.now());
  clock_.advance(Seconds{5.1});
  stuck.tick(clock_.now());
  EXPECT_NE(stuck.ending().find("no proof within 5 s"), std::string::npos);

  AgentSession agent = this->agent();
  clock_.advance(Seconds{5.1});
  agent.tick(clock_.now());
  EXPECT_NE(agent.ending().find("rank 1 (host0): the coordinator: no challenge within 5 s"),
            std::string::npos);
}

TEST_F(SessionTest, SilenceEndsIt) {
  AgentSession agent = this->agent();
  CoordinatorSession coordinator = this->coordinator();
  carry(agent, coordinator);
  for (int i = 0; i < 10; ++i) {
    clock_.advance(Seconds{20});
    agent.send(Heartbeat{i});
    carry(agent, coordinator);
    agent.tick(clock_.now());
    coordinator.tick(clock_.now());
  }
  EXPECT_TRUE(agent.registered() && coordinator.registered());
  clock_.advance(Seconds{31});
  // Half a message is no message.
  coordinator.receive(make_frame(6, "12345678").substr(0, 6), clock_.now());
  agent.tick(clock_.now());
  coordinator.tick(clock_.now());
  EXPECT_NE(coordinator.ending().find("rank 1 (host0): nothing was heard for 30 s"),
            std::string::npos);
  EXPECT_TRUE(agent.ended());
}

TEST_F(SessionTest, AFloodEndsIt) {
  AgentSession agent = this->agent();
  CoordinatorSession coordinator = this->coordinator();
  carry(agent, coordinator);
  std::string flood;
  for (int i = 0; i < 10'000; ++i) {
    flood += to_frame(MessageKind::heartbeat, Heartbeat{i});
  }
  coordinator.receive(flood, clock_.now());
  EXPECT_TRUE(coordinator.ended());
  EXPECT_NE(coordinator.ending().find("more than 500 messages a second"), std::string::npos);
  EXPECT_LE(coordinator.take_events().size(), 2000U);
}

TEST_F(SessionTest, TheAllowedRateIsAllowed) {
  AgentSession agent = this->agent();
  CoordinatorSession coordinator = this->coordinator();
  carry(agent, coordinator);
  for (int i = 0; i < 20'000; ++i) {
    clock_.advance(Seconds{1.0 / 499});
    agent.send(Heartbeat{i});
    carry(agent, coordinator);
  }
  EXPECT_TRUE(coordinator.registered()) << coordinator.ending();
}

TEST_F(SessionTest, WhatIsNotReadIsBounded) {
  limits_.outbox = 10'000;
  AgentSession agent = this->agent();
  CoordinatorSession coordinator = this->coordinator();
  carry(agent, coordinator);
  for (int i = 0; i < 20; ++i) {
    coordinator.send(Command{1, 1, "k", std::string(1000, 'x')});
  }
  EXPECT_TRUE(coordinator.ended());
  EXPECT_LE(coordinator.take_output().size(), 10'000U);
}

}  // namespace
}  // namespace cartesian
