#pragma once
// AgentSession: a rank's half of one connection.

#include <string>
#include <vector>

#include "scheduler/session.h"

namespace cartesian {

/// Not thread-safe.
class AgentSession final : public Session {
 public:
  /// `hello.nonce` must be a new one. `secret` must outlive the session. The hello is its first
  /// output.
  AgentSession(const JobSecret& secret, const Hello& hello, const SessionLimits& limits,
               Seconds now);

  /// Commands that have come since the last call.
  std::vector<Command> take_commands();
  /// Each only while registered(); nothing happens otherwise.
  void send(const Heartbeat& heartbeat) { send(MessageKind::heartbeat, heartbeat); }
  void send(const StepReport& report) { send(MessageKind::step_report, report); }
  void send(const Ack& ack) { send(MessageKind::ack, ack); }
  void send(const Goodbye& goodbye) { send(MessageKind::goodbye, goodbye); }

  /// The highest step of any rank that the coordinator told, or -1.
  std::int64_t job_step() const { return job_step_; }

 private:
  void send(MessageKind kind, const auto& message) {
    if (registered()) {
      put(to_frame(kind, message));
    }
  }
  void handle(MessageKind kind, std::string_view payload) override;
  std::string peer() const override;
  std::string_view awaited() const override;
  void handle_challenge(std::string_view payload);
  void handle_welcome(std::string_view payload);

  const JobSecret& secret_;
  Hello hello_;
  std::string transcript_;  // the hello's payload
  Nonce challenge_{};
  std::int64_t job_step_ = -1;
  std::vector<Command> commands_;
};

}  // namespace cartesian
