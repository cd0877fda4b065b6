#include "runtime/train/metrics_endpoint.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace cartesian {

namespace {

/// How others reach what listens at `address` of `host`.
std::string reached_as(const std::string& address, const std::string& host) {
  if (address == "0.0.0.0" || address == "::") {
    return host;
  }
  return address.find(':') == std::string::npos ? address : "[" + address + "]";
}

}  // namespace

MetricsEndpoint::MetricsEndpoint(Job& job, const Config& config, Coordinator& coordinator,
                                 const Placement& placement,
                                 const std::function<void(const std::string&)>& say)
    : files_(job.files),
      address_file_(Path(config.run.dir) / kMetricsAddressFile),
      monitor_({.metrics = {.experts = config.metrics.experts,
                            .window_steps = static_cast<int>(config.metrics.window_steps)}},
               coordinator, job.clock) {
  if (config.model.sub_layers > 0) {
    monitor_.set_placement(placement, /*version=*/0);
  }
  if (config.metrics.served()) {
    serve(job, config, say);
  }
}

MetricsEndpoint::~MetricsEndpoint() {
  if (server_) {
    try {
      files_.remove_all(address_file_);
    } catch (const FileError&) {  // the next start writes it anew
    }
  }
}

void MetricsEndpoint::serve(Job& job, const Config& config,
                            const std::function<void(const std::string&)>& say) {
  const MetricsConfig& metrics = config.metrics;
  const auto port = static_cast<std::uint16_t>(std::max<std::int64_t>(0, metrics.port));
  server_.emplace(MetricsServerOptions{.address = metrics.address, .port = port}, monitor_);
  const std::string target =
      fmt::format("{}:{}", reached_as(metrics.address, job.transport.host()), server_->port());
  const std::string url = fmt::format("http://{}/metrics", target);
  job.files.write_atomically(address_file_, url + "\n");
  if (!metrics.discovery_file.empty()) {
    discovery_.emplace(job.files, metrics.discovery_file,
                       DiscoveryEntry{.target = target, .job = metrics.job, .run = config.run.dir});
  }
  say("metrics: " + url);
}

}  // namespace cartesian
