#pragma once
// MetricsClient: asks a job's metrics server (scheduler/metrics_server.h) by HTTP.

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "runtime/top/metrics_address.h"
#include "runtime/top/metrics_text.h"

namespace cartesian {

struct MetricsClientOptions {
  Seconds timeout{5};  ///< for a request, from the connection to its end
  std::size_t body_limit = kMaxMetricsBytes;
};

/// get() is for one thread; cancel() is thread-safe.
class MetricsClient {
 public:
  explicit MetricsClient(MetricsClientOptions options = {});
  ~MetricsClient();
  MetricsClient(const MetricsClient&) = delete;
  MetricsClient& operator=(const MetricsClient&) = delete;

  /// The body of GET `path`; nothing if the answer is 404. Blocks. Throws Error, "no answer from
  /// HOST:PORT: ...", if nobody listens, the time is over, the body is too long, or the answer is
  /// another than 200.
  std::optional<std::string> get(const MetricsAddress& address, const std::string& path);

  /// Ends a get() that waits, and every later one, with an Error. (A host's name that is being
  /// looked up still is.)
  void cancel();

 private:
  class Connection;
  std::unique_ptr<Connection> connection_;
};

}  // namespace cartesian
