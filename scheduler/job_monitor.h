#pragma once
// JobMonitor: what is to be told of a job to the outside: its metrics, its troubles and its
// placement, as texts. metrics_server.h and metrics_pusher.h carry them.

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/placement.h"
#include "scheduler/coordinator.h"
#include "scheduler/job_metrics.h"

namespace cartesian {

struct MonitorOptions {
  JobMetricsOptions metrics;
  Seconds stall{600};  ///< without a step that ends: a trouble
};

/// Thread-safe. Training never waits for it; the coordinator does while sums are added up and
/// copied, not while texts are made of them.
class JobMonitor {
 public:
  /// Sees the reports that come from now on. `coordinator` and `clock` must outlive it. Throws
  /// ConfigError naming metrics.experts or metrics.window_steps.
  JobMonitor(const MonitorOptions& options, Coordinator& coordinator, const Clock& clock);
  ~JobMonitor();
  JobMonitor(const JobMonitor&) = delete;
  JobMonitor& operator=(const JobMonitor&) = delete;

  /// The placement in force from now on. REQUIRES: its layers, groups, experts and ranks are the
  /// job's.
  void set_placement(Placement placement, std::int64_t version);

  /// In Prometheus' text format.
  std::string metrics_text() const;
  /// A sentence for each rank that is dead or lost, or absent and overdue, and for steps that do
  /// not end; empty if all is well.
  std::vector<std::string> troubles() const;
  /// The JSON of docs/formats.md, with {"plan_version": N} as its plan; nothing while unknown.
  std::optional<std::string> placement_json() const;

 private:
  std::shared_ptr<const Placement> placement() const;

  Coordinator& coordinator_;
  Seconds stall_;
  // Taken while the coordinator's lock is held, so the coordinator is never called under it.
  mutable std::mutex mutex_;
  JobMetrics metrics_;  // guarded by mutex_
  // Which training takes: nothing is done under it. May be taken under mutex_.
  mutable std::mutex placement_mutex_;
  std::shared_ptr<const Placement> placement_;  // guarded by placement_mutex_
  std::int64_t plan_version_ = 0;               // guarded by placement_mutex_
};

}  // namespace cartesian
