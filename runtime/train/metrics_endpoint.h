#pragma once
// MetricsEndpoint: where a run's metrics are to be had, beside rank 0's coordinator: by HTTP, with
// the files that say where, and from a Pushgateway.

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/placement.h"
#include "runtime/config/config.h"
#include "runtime/job.h"
#include "runtime/train/discovery_file.h"
#include "scheduler/job_monitor.h"
#include "scheduler/metrics_pusher.h"
#include "scheduler/metrics_server.h"

namespace cartesian {

/// In the run directory while the server listens: its URL.
inline constexpr const char* kMetricsAddressFile = "metrics_address";

/// monitor() is thread-safe; the rest belongs to the thread that made it.
class MetricsEndpoint {
 public:
  /// Serves and pushes as metrics.* say, and tells `say` where. `job` and `coordinator` must
  /// outlive it. Throws ConfigError if it cannot listen there or a setting is wrong, FileError if a
  /// file cannot be written.
  MetricsEndpoint(Job& job, const Config& config, Coordinator& coordinator,
                  const Placement& placement, std::function<void(const std::string&)> say);
  /// Removes the files, but for what finish() leaves; that this fails changes nothing.
  ~MetricsEndpoint();
  MetricsEndpoint(const MetricsEndpoint&) = delete;
  MetricsEndpoint& operator=(const MetricsEndpoint&) = delete;

  JobMonitor& monitor() { return monitor_; }

  /// Tells what of pushing went wrong since the last call, each kind of trouble once. To be called
  /// now and then.
  void attend();
  /// Pushes a last time; waits at most `timeout`. After an error the discovery file stays, as it
  /// does when the job is killed, so that Prometheus misses the job.
  void finish(Seconds timeout, int exit_code);

 private:
  void serve(Job& job, const Config& config);
  void push(const MetricsConfig& metrics, const std::string& run);

  FileSystem& files_;
  std::function<void(const std::string&)> say_;
  Path address_file_;
  JobMonitor monitor_;
  std::optional<MetricsServer> server_;
  std::optional<DiscoveryFile> discovery_;
  std::mutex mutex_;
  std::vector<std::string> troubles_;    // guarded by mutex_: not told yet
  std::optional<MetricsPusher> pusher_;  // last: it calls back
};

}  // namespace cartesian
