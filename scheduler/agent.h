#pragma once
// Agent: a rank's end of the control plane, on a thread of its own. Training never waits for it: a
// coordinator that is slow or gone costs reports, not steps.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "scheduler/control_messages.h"
#include "scheduler/secret.h"
#include "scheduler/session.h"
#include "scheduler/step_report.h"

namespace cartesian {

struct AgentOptions {
  std::string address = "127.0.0.1";  ///< of the coordinator, numeric
  std::uint16_t port = 0;
  int rank = 0;
  int ranks = 1;
  std::string host;
  std::size_t queue = 64;  ///< reports that wait to be sent
  Seconds heartbeat{1};
  Seconds backoff{0.1};  ///< after the first failure; doubled each time
  Seconds max_backoff{5};
  SessionLimits session;
};

struct AgentStatus {
  bool registered = false;
  std::int64_t registrations = 0;
  std::int64_t sent = 0;     ///< reports
  std::int64_t dropped = 0;  ///< reports that were the oldest in a full queue
  std::string trouble;       ///< why the last connection failed or ended; empty if none did
};

/// Thread-safe. No function but finish() waits for anything but a lock that is held briefly.
class Agent {
 public:
  /// Returns before it is connected. Throws ConfigError for an address that is none.
  Agent(AgentOptions options, const JobSecret& secret);
  /// Closes the connection without a goodbye unless finish() was called: the coordinator then takes
  /// the rank for lost. Waits for nothing.
  ~Agent();

  /// Queues a report, in place of the oldest if the queue is full.
  void report(StepReport report);
  /// The next command for `step`, which begins; to be called until there is none. One that comes
  /// when its step has begun is never handed out, and acknowledged as late. Ranks may thus differ:
  /// before they act they must agree, in the data plane, that all have it.
  std::optional<Command> take_command(std::int64_t step);
  AgentStatus status() const;

  /// Sends the queue and a goodbye; waits until they are sent, at most `timeout`. True if they
  /// were.
  bool finish(int exit_code, std::string reason, Seconds timeout);

 private:
  class Client;
  std::unique_ptr<Client> client_;
};

}  // namespace cartesian
