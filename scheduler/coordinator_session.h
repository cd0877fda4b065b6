#pragma once
// CoordinatorSession: the coordinator's half of one connection.

#include <string>
#include <variant>
#include <vector>

#include "scheduler/session.h"

namespace cartesian {

/// What a session tells the coordinator. `Hello`: the rank has proven that it knows the secret and
/// waits for admit() or refuse().
using CoordinatorEvent = std::variant<Hello, Heartbeat, StepReport, Ack, Goodbye>;

/// Not thread-safe.
class CoordinatorSession final : public Session {
 public:
  /// `nonce` must be a new one. `secret` must outlive the session.
  CoordinatorSession(const JobSecret& secret, int ranks, const Nonce& nonce,
                     const SessionLimits& limits, Seconds now);

  /// What has happened since the last call, in order. An end is not an event: see ended().
  std::vector<CoordinatorEvent> take_events();
  /// REQUIRES: a Hello event has been taken and not been answered.
  void admit(Seconds now);
  /// Tells the peer why and ends the session.
  void refuse(std::string_view reason);

  /// To a registered rank; nothing happens otherwise.
  void send(const Command& command);
  /// The highest step of all ranks, with which heartbeats are answered.
  void set_step(std::int64_t step) { step_ = step; }

  /// The rank that it claims to be, or -1 if it has said nothing or nothing valid.
  int rank() const { return rank_; }

 private:
  void handle(MessageKind kind, std::string_view payload) override;
  std::string peer() const override;
  std::string_view awaited() const override;
  void handle_hello(std::string_view payload);
  void handle_proof(std::string_view payload);
  void handle_member(MessageKind kind, std::string_view payload);

  const JobSecret& secret_;
  int ranks_;
  Nonce nonce_;
  std::string transcript_;  // the hello, as it came
  Hello hello_;
  int rank_ = -1;
  std::int64_t step_ = -1;
  std::vector<CoordinatorEvent> events_;
};

}  // namespace cartesian
