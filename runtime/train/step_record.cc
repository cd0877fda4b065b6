#include "runtime/train/step_record.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "runtime/train/expert_load.h"

namespace cartesian {

namespace {

/// The most memory this process has had.
std::int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * std::int64_t{1024};  // Linux counts in KiB
}

nlohmann::ordered_json phase_seconds(const PhaseTimes& times) {
  nlohmann::ordered_json json;
  for (std::size_t i = 0; i < kPhases; ++i) {
    const auto phase = static_cast<Phase>(i);
    json[std::string(name_of(phase))] = times[phase].count();
  }
  return json;
}

}  // namespace

StepTraffic traffic_so_far(Metrics& metrics) {
  const auto value = [&](const char* name) { return metrics.counter(name).value(); };
  return {.intra_bytes = value("cartesian_transport_bytes_total{scope=\"intra\"}"),
          .inter_bytes = value("cartesian_transport_bytes_total{scope=\"inter\"}"),
          .intra_rows = value("cartesian_exchange_rows_total{scope=\"intra\"}"),
          .inter_rows = value("cartesian_exchange_rows_total{scope=\"inter\"}"),
          .pivots = value("cartesian_exchange_pivots_total"),
          .pivot_hits = value("cartesian_exchange_pivot_hits_total"),
          .pivot_rows = value("cartesian_pivot_rows_total{pivot=\"chosen\"}"),
          .oracle_rows = value("cartesian_pivot_rows_total{pivot=\"oracle\"}")};
}

nlohmann::ordered_json step_record(const ProgressReport& report, const StepResult& result,
                                   const StepTimes& times, const StepTraffic& sent,
                                   ModelRank& rank) {
  nlohmann::ordered_json record = {{"step", report.step},
                                   {"loss", result.loss},
                                   {"balance_loss", result.balance_loss},
                                   {"z_loss", result.z_loss},
                                   {"largest_router_bias", result.largest_bias},
                                   {"gradient_norm", result.gradient_norm},
                                   {"learning_rate", result.learning_rate},
                                   {"tokens_per_s", report.tokens_per_s},
                                   {"step_s", times.duration.count()},
                                   {"balancedness", report.balancedness},
                                   {"dead_experts", dead_experts(result.loads)},
                                   {"exchange_share", report.exchange_share},
                                   {"wait_s", times.waited.count()},
                                   {"chunks", rank.context().chunks},
                                   {"intra_bytes", sent.intra_bytes},
                                   {"inter_bytes", sent.inter_bytes},
                                   {"exchange_intra_rows", sent.intra_rows},
                                   {"exchange_inter_rows", sent.inter_rows},
                                   {"phase_s", phase_seconds(rank.context().times)},
                                   {"arena_bytes", rank.arena_bytes()},
                                   {"arena_growths", rank.arena_growths()},
                                   {"model_bytes", rank.parameters().bytes()},
                                   {"peak_rss_bytes", peak_rss_bytes()}};
  if (sent.pivots > 0) {
    record["pivot_hit_rate"] = sent.pivot_hits / sent.pivots;
  }
  if (sent.oracle_rows > 0) {
    record["rows_over_oracle"] = sent.pivot_rows / sent.oracle_rows;
  }
  return record;
}

}  // namespace cartesian
