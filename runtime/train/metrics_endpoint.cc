#include "runtime/train/metrics_endpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "runtime/train/coordinator_address.h"

namespace cartesian {

namespace {

/// How others reach what listens at `address` of `host`.
std::string reached_as(const std::string& address, const std::string& host) {
  if (is_every_address(address)) {
    return host;
  }
  return address.find(':') == std::string::npos ? address : "[" + address + "]";
}

}  // namespace

MetricsEndpoint::MetricsEndpoint(Job& job, const Config& config, Coordinator& coordinator,
                                 const Placement& placement,
                                 std::function<void(const std::string&)> say)
    : files_(job.files),
      say_(std::move(say)),
      address_file_(Path(config.run.dir) / kMetricsAddressFile),
      monitor_({.metrics = {.experts = config.metrics.experts,
                            .window_steps = static_cast<int>(config.metrics.window_steps)}},
               coordinator, job.clock) {
  if (config.model.sub_layers > 0) {
    monitor_.set_placement(placement, /*version=*/0);
  }
  if (!config.metrics.push_url.empty()) {
    push(config.metrics, config.run.dir);
  }
  if (config.metrics.served()) {
    serve(job, config);
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

void MetricsEndpoint::serve(Job& job, const Config& config) {
  const MetricsConfig& metrics = config.metrics;
  const auto port = static_cast<std::uint16_t>(std::max<std::int64_t>(0, metrics.port));
  server_.emplace(MetricsServerOptions{.address = metrics.address, .port = port}, monitor_);
  const std::string target =
      fmt::format("{}:{}", reached_as(metrics.address, job.transport.host()), server_->port());
  const std::string url = fmt::format("http://{}/metrics", target);
  if (!metrics.discovery_file.empty()) {
    discovery_.emplace(job.files, metrics.discovery_file,
                       DiscoveryEntry{.target = target, .job = metrics.job, .run = config.run.dir});
  }
  job.files.write_atomically(address_file_, url + "\n");  // last: the destructor removes it
  say_("metrics: " + url);
}

void MetricsEndpoint::push(const MetricsConfig& metrics, const std::string& run) {
  pusher_.emplace(PusherOptions{.url = metrics.push_url,
                                .job = metrics.job,
                                .every = Seconds(metrics.push_every_s),
                                .run = run},
                  monitor_, [this](const std::string& trouble) {
                    const std::lock_guard lock(mutex_);
                    troubles_.push_back(trouble);
                  });
  say_(fmt::format("metrics: pushed to {} as job {}", metrics.push_url, metrics.job));
}

void MetricsEndpoint::attend() {
  std::vector<std::string> troubles;
  {
    const std::lock_guard lock(mutex_);
    troubles.swap(troubles_);
  }
  for (const std::string& trouble : troubles) {
    say_(trouble);
  }
}

void MetricsEndpoint::finish(Seconds timeout, int exit_code) {
  if (discovery_ && exit_code == kExitError) {
    discovery_->leave();
  }
  if (pusher_) {
    pusher_->finish(timeout);
  }
  attend();
}

}  // namespace cartesian
