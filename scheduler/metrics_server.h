#pragma once
// MetricsServer: a JobMonitor over HTTP/1.1, on a thread of its own. GET and HEAD of
//   /metrics         Prometheus' text format
//   /healthz         200 and "ok", or 503 and a sentence for each trouble
//   /placement.json  the placement in force; 404 while it is unknown
// It has no secret: it tells, to whoever reaches the port, and takes nothing.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "scheduler/job_monitor.h"

namespace cartesian {

struct MetricsServerOptions {
  std::string address = "127.0.0.1";  ///< numeric; who listens to other hosts says so
  std::uint16_t port = 0;             ///< 0: any that is free
  Seconds request{10};                ///< for all of a request and its answer
  std::size_t header = 8192;          ///< bytes of a request
  std::size_t connections = 64;       ///< at a time; one more takes the place of the oldest
};

/// Thread-safe. Each connection carries one request.
class MetricsServer {
 public:
  /// Listens when it returns. `monitor` must outlive it. Throws ConfigError, which names address
  /// and port, if it cannot.
  MetricsServer(MetricsServerOptions options, const JobMonitor& monitor);
  /// Closes all connections.
  ~MetricsServer();

  std::uint16_t port() const;

 private:
  class Server;
  std::unique_ptr<Server> server_;
};

}  // namespace cartesian
