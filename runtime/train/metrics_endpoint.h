#pragma once
// MetricsEndpoint: where a run's metrics are to be had, beside rank 0's coordinator: by HTTP, and
// the files that say where.

#include <functional>
#include <optional>
#include <string>

#include "base/placement.h"
#include "runtime/config/config.h"
#include "runtime/job.h"
#include "runtime/train/discovery_file.h"
#include "scheduler/job_monitor.h"
#include "scheduler/metrics_server.h"

namespace cartesian {

/// In the run directory while the server listens: its URL.
inline constexpr const char* kMetricsAddressFile = "metrics_address";

/// Thread-safe.
class MetricsEndpoint {
 public:
  /// Serves as metrics.* say, and tells `say` where. `job` and `coordinator` must outlive it.
  /// Throws ConfigError if it cannot listen there, FileError if a file cannot be written.
  MetricsEndpoint(Job& job, const Config& config, Coordinator& coordinator,
                  const Placement& placement, const std::function<void(const std::string&)>& say);
  /// Removes the files; that this fails changes nothing.
  ~MetricsEndpoint();
  MetricsEndpoint(const MetricsEndpoint&) = delete;
  MetricsEndpoint& operator=(const MetricsEndpoint&) = delete;

  JobMonitor& monitor() { return monitor_; }

 private:
  void serve(Job& job, const Config& config, const std::function<void(const std::string&)>& say);

  FileSystem& files_;
  Path address_file_;
  JobMonitor monitor_;
  std::optional<MetricsServer> server_;
  std::optional<DiscoveryFile> discovery_;
};

}  // namespace cartesian
