#pragma once
// MetricsSource: readings of the job that a MetricsTarget names.

#include <optional>

#include "base/clock.h"
#include "runtime/top/job_snapshot.h"
#include "runtime/top/metrics_address.h"
#include "runtime/top/metrics_client.h"

namespace cartesian {

/// read() is for one thread; cancel() is thread-safe.
class MetricsSource {
 public:
  /// `target` and `clock` must outlive it.
  MetricsSource(const MetricsTarget& target, const Clock& clock,
                const MetricsClientOptions& options = {});

  /// Asks for the metrics and the placement. Nothing if the run directory has no address: its job
  /// has ended. Blocks. Throws Error, which names the address, if there is no answer or one that
  /// is no job's.
  std::optional<JobSnapshot> read();
  /// As MetricsClient's.
  void cancel() { client_.cancel(); }

 private:
  const MetricsTarget& target_;
  const Clock& clock_;
  MetricsClient client_;
};

}  // namespace cartesian
