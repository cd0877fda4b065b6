#pragma once
// The keys of the control plane: who knows which ranks are alive and what they do, and who may ask.

#include <cstdint>
#include <string>

namespace cartesian {

struct SchedulerConfig {
  bool enabled = false;
  std::string address = "127.0.0.1";  ///< of rank 0's host, numeric; the other ranks connect to it
  std::int64_t port = 0;              ///< 0: any that is free
  double heartbeat_s = 1;             ///< between a rank's signs of life
  double late_s = 5;                  ///< of silence, after which a rank is late
  double dead_s = 30;                 ///< likewise dead
};

struct MetricsConfig {
  std::string address = "127.0.0.1";  ///< where rank 0 serves them
  std::int64_t port = -1;             ///< -1: nowhere; 0: any that is free
  std::string experts = "none";       ///< MoE layers with a metric for every expert
  std::int64_t window_steps = 10;     ///< that what is computed over a window covers
  std::string discovery_file;         ///< for Prometheus; empty: none
  std::string push_url;               ///< of a Pushgateway; empty: none
  double push_every_s = 15;
  std::string job = "cartesian";  ///< Prometheus' name of the job

  /// Whether rank 0 serves them.
  bool served() const { return port >= 0 || !discovery_file.empty(); }
};

/// Throws ConfigError, which names the key, for values that cannot work.
void validate(const SchedulerConfig& scheduler, const MetricsConfig& metrics,
              std::int64_t moe_layers);

}  // namespace cartesian
