#include "runtime/config/control_config.h"

#include <fmt/format.h>

#include "base/error.h"
#include "scheduler/job_metrics.h"

namespace cartesian {

void validate(const SchedulerConfig& scheduler, const MetricsConfig& metrics,
              std::int64_t moe_layers) {
  if (scheduler.late_s <= scheduler.heartbeat_s) {
    throw ConfigError(fmt::format("scheduler.late_s = {}: must be above scheduler.heartbeat_s = {}",
                                  scheduler.late_s, scheduler.heartbeat_s));
  }
  if (scheduler.dead_s <= scheduler.late_s) {
    throw ConfigError(fmt::format("scheduler.dead_s = {}: must be above scheduler.late_s = {}",
                                  scheduler.dead_s, scheduler.late_s));
  }
  expert_layers(metrics.experts, static_cast<int>(moe_layers));
}

}  // namespace cartesian
