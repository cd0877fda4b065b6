#pragma once
// Coordinator: the job's end of the control plane, beside rank 0: a TCP listener on a thread of its
// own, whose cost does not depend on what strangers do.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "scheduler/job_state.h"
#include "scheduler/secret.h"
#include "scheduler/session.h"
#include "scheduler/step_report.h"

namespace cartesian {

struct CoordinatorOptions {
  std::string address = "127.0.0.1";  ///< numeric; who listens to other hosts says so
  std::uint16_t port = 0;             ///< 0: any that is free
  /// Connections that have not registered yet, beside one a rank, so that ranks that come all at
  /// once do not turn each other out; one more takes the place of the oldest.
  std::size_t strangers = 256;
  SessionLimits session;
  JobLimits job;
};

/// What training looks at every step.
struct JobStanding {
  std::vector<Straggler> stragglers;  ///< that are named now
  bool blind = false;                 ///< see StragglerWatch
  std::vector<int> overdue;           ///< see JobState
};

/// Thread-safe. Neither the constructor nor any function waits for a rank.
class Coordinator {
 public:
  /// Listens when it returns. Throws ConfigError, which names address and port, if it cannot.
  Coordinator(CoordinatorOptions options, JobShape shape, const JobSecret& secret);
  /// Closes all connections; agents then see it lost.
  ~Coordinator();

  std::uint16_t port() const;

  /// Sends a command to all ranks, also to those that register later, and returns its id; see
  /// JobState::command().
  std::uint64_t command(std::string kind, std::string payload, std::int64_t earliest = 0);
  /// Calls `look` with the job's state, which stands still meanwhile: to be brief.
  void inspect(const std::function<void(const JobState&)>& look) const;
  /// As of the last report or tick. Never waits for whoever looks at the job's state.
  JobStanding standing() const;
  /// Calls `observer` at every report that counts, from the coordinator's thread while the job's
  /// state stands still: to be brief, and to call nothing of the coordinator. In place of the
  /// observer before, which is not called any more when this returns; null: nobody.
  void observe(ReportObserver observer);
  /// Connections ended or refused, not counting goodbyes: their number, and the sentences of the
  /// last few.
  std::int64_t troubles() const;
  std::vector<std::string> last_troubles() const;

 private:
  class Server;
  std::unique_ptr<Server> server_;
};

}  // namespace cartesian
