#pragma once
// MetricsPusher: sends a JobMonitor's metrics to a Pushgateway, for jobs that Prometheus cannot
// reach: PUT URL/metrics/job/JOB/run@base64/RUN, over plain HTTP, on a thread of its own.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "scheduler/host_lookup.h"
#include "scheduler/job_monitor.h"

namespace cartesian {

struct PusherOptions {
  std::string url;                ///< http://HOST[:PORT][/PATH]
  std::string job = "cartesian";  ///< letters, digits, '_', '.' and '-'
  Seconds every{15};
  Seconds timeout{5};    ///< of one push, and of the look-up of its host before it
  std::string run = {};  ///< runs of one job keep their own metrics; empty: no part of the path
  Resolver resolver = resolve_host;  ///< of the host's name
};

struct PushStatus {
  std::int64_t pushed = 0;
  std::int64_t failed = 0;
  std::string trouble;  ///< of the last push, if it failed
};

/// Thread-safe.
class MetricsPusher {
 public:
  /// `monitor` must outlive it. Calls `tell`, from its thread, with each kind of trouble once.
  /// Throws ConfigError naming metrics.push_url, metrics.job or metrics.push_every_s.
  MetricsPusher(PusherOptions options, const JobMonitor& monitor,
                std::function<void(const std::string&)> tell);
  /// Drops what is being pushed; waits for nothing.
  ~MetricsPusher();

  PushStatus status() const;
  /// One more push, the last; waits at most `timeout`. True if it was taken.
  bool finish(Seconds timeout);

 private:
  class Client;
  std::unique_ptr<Client> client_;
};

}  // namespace cartesian
