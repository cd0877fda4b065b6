#include <gtest/gtest.h>

#include <cmath>

#include "scheduler/agent_session.h"
#include "scheduler/coordinator_session.h"
#include "tests/fuzz/mutator.h"
#include "tests/scheduler/sample_job.h"

namespace cartesian {
namespace {

constexpr int kRanks = 2;

StepReport sample_report() { return testing_job::report(testing_job::shape(kRanks), 1, 12); }

/// Nonces are fixed: every run sees the same inputs.
Hello sample_hello() {
  Hello hello = testing_job::hello(1, kRanks);
  hello.nonce.fill(1);
  return hello;
}

void expect_usable(const StepReport& report) {
  for (const float load : report.loads) {
    EXPECT_TRUE(std::isfinite(load) && load >= 0);
  }
  EXPECT_GE(report.step, 0);
  EXPECT_EQ(StepReport::decode(report.encode()), report);
}

/// What a registered rank may send, kind byte first.
TEST(Fuzz, SchedulerMessages) {
  const auto message = [](MessageKind kind, const auto& body) {
    return to_frame(kind, body).substr(sizeof(std::uint32_t));
  };
  const std::vector<std::string> seeds = {
      message(MessageKind::hello, sample_hello()),
      message(MessageKind::refused, Refused{"no"}),
      message(MessageKind::heartbeat, Heartbeat{7}),
      message(MessageKind::step_report, sample_report()),
      message(MessageKind::command, Command{1, 2, "replan", "{}"}),
      message(MessageKind::ack, Ack{1, true}),
      message(MessageKind::goodbye, Goodbye{75, "stopped"})};
  fuzz(Mutator(seeds, {std::string(4, '\xff'), std::string(8, '\0')}),
       [](const std::string& input) {
         const std::string_view payload = std::string_view(input).substr(input.empty() ? 0 : 1);
         switch (static_cast<MessageKind>(input.empty() ? 0 : input.front())) {
           case MessageKind::hello:
             Hello::decode(payload);
             break;
           case MessageKind::refused:
             Refused::decode(payload);
             break;
           case MessageKind::heartbeat:
             EXPECT_GE(Heartbeat::decode(payload).step, -1);
             break;
           case MessageKind::step_report:
             expect_usable(StepReport::decode(payload));
             break;
           case MessageKind::command:
             EXPECT_GE(Command::decode(payload).at_step, 0);
             break;
           case MessageKind::ack:
             Ack::decode(payload);
             break;
           case MessageKind::goodbye:
             Goodbye::decode(payload);
             break;
           default:
             throw FormatError("no such message");
         }
       });
}

/// The stream of a rank that has the secret, damaged from the registration on.
TEST(Fuzz, SchedulerSessions) {
  const JobSecret secret = JobSecret::from_hex(std::string(64, 'a'));
  Nonce nonce;
  nonce.fill(2);
  const Hello hello = sample_hello();
  const std::string talk =
      to_frame(MessageKind::hello, hello) +
      to_frame(MessageKind::proof, Proof{secret.prove("agent", hello.encode(), nonce)}) +
      to_frame(MessageKind::heartbeat, Heartbeat{1}) +
      to_frame(MessageKind::step_report, sample_report()) +
      to_frame(MessageKind::ack, Ack{1, true}) + to_frame(MessageKind::goodbye, Goodbye{0, "done"});
  fuzz(Mutator({talk}, {std::string(4, '\0'), std::string(4, '\xff')}),
       [&](const std::string& input) {
         CoordinatorSession session(secret, kRanks, nonce, {}, Seconds{0});
         session.receive(input, Seconds{0});
         bool finished = false;
         for (auto events = session.take_events(); !events.empty();
              events = session.take_events()) {
           for (const CoordinatorEvent& event : events) {
             if (std::holds_alternative<Hello>(event)) {
               session.admit(Seconds{0});
             }
             finished = finished || std::holds_alternative<Goodbye>(event);
           }
         }
         session.take_output();
         EXPECT_TRUE(session.ended() || session.rank() < kRanks);
         if (session.ended() && !finished) {
           throw FormatError(session.ending());
         }
       });
}

}  // namespace
}  // namespace cartesian
