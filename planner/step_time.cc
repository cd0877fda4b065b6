#include "planner/step_time.h"

#include <algorithm>
#include <numeric>

namespace cartesian {

namespace {

double largest(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::ranges::max_element(values);
}

/// Each taken over its unit's speed.
double slowest(const std::vector<double>& values, const std::vector<double>& speeds) {
  if (speeds.empty()) {
    return largest(values);
  }
  double most = 0;
  for (std::size_t unit = 0; unit < values.size(); ++unit) {
    most = std::max(most, values[unit] / speeds[unit]);
  }
  return most;
}

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

RowSizes row_sizes(const RoutingTrace& trace) {
  return {.hidden = static_cast<double>(trace.hidden),
          .expert_width = static_cast<double>(trace.expert_width),
          .element_bytes = trace.dtype == "bfloat16" ? 2.0 : 4.0,
          .experts = static_cast<double>(trace.experts)};
}

double expert_flops(const RowSizes& sizes) { return 6 * sizes.hidden * sizes.expert_width; }

double router_flops(const RowSizes& sizes) { return 2 * sizes.hidden * sizes.experts; }

StepTime& StepTime::operator+=(const StepTime& other) {
  inter_s += other.inter_s;
  intra_s += other.intra_s;
  compute_s += other.compute_s;
  gradients_s += other.gradients_s;
  return *this;
}

StepTime predict_step(const Traffic& traffic, double tokens, const Cluster& cluster,
                      const RowSizes& sizes) {
  const double scale = traffic.tokens > 0 ? tokens / traffic.tokens : 0;
  const double row_bytes = sizes.hidden * sizes.element_bytes;
  StepTime time;
  for (const Traffic::Phase& phase : traffic.phases) {
    const double card = std::max(slowest(phase.egress, cluster.card_speeds),
                                 slowest(phase.ingress, cluster.card_speeds));
    if (card > 0) {
      time.inter_s +=
          2 * (cluster.inter.latency_s + scale * card * row_bytes / cluster.inter.bytes_per_s);
    }
    if (phase.intra > 0) {
      time.intra_s +=
          2 * (cluster.intra.latency_s + scale * phase.intra * row_bytes /
                                             cluster.topology.ranks() / cluster.intra.bytes_per_s);
    }
  }
  for (const std::vector<double>& rows : traffic.expert_rows) {
    time.compute_s += (1 + kBackwardProducts) * scale * slowest(rows, cluster.rank_speeds) *
                      expert_flops(sizes) / cluster.flops;
  }
  time.compute_s += (1 + kBackwardProducts) * scale * slowest(traffic.pivots, cluster.rank_speeds) *
                    router_flops(sizes) / cluster.flops;
  return time;
}

std::array<double, kTravelPhases> card_imbalance(const Traffic& traffic) {
  std::array<double, kTravelPhases> imbalance{};
  for (std::size_t phase = 0; phase < imbalance.size(); ++phase) {
    imbalance.at(phase) = 1;
    for (const auto* card : {&traffic.phases.at(phase).egress, &traffic.phases.at(phase).ingress}) {
      const double total = sum(*card);
      if (total > 0) {
        imbalance.at(phase) = std::max(imbalance.at(phase),
                                       largest(*card) * static_cast<double>(card->size()) / total);
      }
    }
  }
  return imbalance;
}

double worst_card(const Traffic& traffic) {
  const auto imbalance = card_imbalance(traffic);
  return *std::ranges::max_element(imbalance);
}

double rank_imbalance(const Traffic& traffic) {
  std::vector<double> rows;
  for (const std::vector<double>& group : traffic.expert_rows) {
    rows.resize(std::max(rows.size(), group.size()));
    std::ranges::transform(group, rows, rows.begin(), std::plus<>());
  }
  const double total = sum(rows);
  return total > 0 ? largest(rows) * static_cast<double>(rows.size()) / total : 1;
}

}  // namespace cartesian
