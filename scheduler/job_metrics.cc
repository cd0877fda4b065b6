#include "scheduler/job_metrics.h"

#include <fmt/format.h>
#include <prometheus/metric_family.h>

#include <algorithm>
#include <charconv>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "scheduler/load_statistics.h"
#include "scheduler/metric_families_internal.h"

namespace cartesian {

namespace {

int window_steps(const JobMetricsOptions& options) {
  if (options.window_steps < 1 || options.window_steps > JobMetricsOptions::kMostWindowSteps) {
    throw ConfigError(fmt::format("metrics.window_steps is {}; it is 1 to {}", options.window_steps,
                                  JobMetricsOptions::kMostWindowSteps));
  }
  return options.window_steps;
}

/// Nodes whose pairs have series; 0 for a job that has too many.
std::size_t paired_nodes(const JobShape& shape) {
  const auto last = std::ranges::max_element(shape.node_of_rank);
  const int nodes = last == shape.node_of_rank.end() ? 0 : *last + 1;
  return nodes > JobMetricsOptions::kMostNodesInPairs ? 0 : static_cast<std::size_t>(nodes);
}

}  // namespace

std::vector<int> expert_layers(std::string_view text, int layers) {
  std::vector<int> found;
  if (text == "none") {
    return found;
  }
  if (text == "all") {
    found.resize(static_cast<std::size_t>(layers));
    std::iota(found.begin(), found.end(), 0);
    return found;
  }
  const char* at = text.data();
  const char* end = text.data() + text.size();
  while (true) {
    int layer = -1;
    const auto [next, error] = std::from_chars(at, end, layer);
    if (error != std::errc() || layer < 0 || layer >= layers || (next != end && *next != ',')) {
      throw ConfigError(fmt::format(
          "metrics.experts is '{}'; it is none, all, or MoE layers below {} such as 0,3", text,
          layers));
    }
    found.push_back(layer);
    if (next == end) {
      break;
    }
    at = next + 1;
  }
  std::ranges::sort(found);
  const auto twice = std::ranges::unique(found);
  found.erase(twice.begin(), twice.end());
  return found;
}

JobMetrics::JobMetrics(JobShape shape, const JobMetricsOptions& options, const Clock& clock)
    : shape_(std::move(shape)),
      expert_layers_(expert_layers(options.experts, shape_.layers)),
      clock_(clock),
      window_(shape_, window_steps(options)),
      step_since_(clock.now()),
      totals_(shape_),
      ranks_(static_cast<std::size_t>(shape_.ranks)),
      paired_nodes_(paired_nodes(shape_)),
      node_waits_(paired_nodes_ * paired_nodes_),
      step_s_({0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250}) {}

void JobMetrics::add(int rank, const StepReport& report) {
  if (report.step > step_) {
    step_ = report.step;
    step_since_ = clock_.now();
  }
  totals_.add(rank, report);
  RankSteps& own = ranks_[static_cast<std::size_t>(rank)];
  for (std::size_t peer = 0; paired_nodes_ > 0 && peer < report.waits_by_peer.size(); ++peer) {
    const auto node = static_cast<std::size_t>(shape_.node_of_rank[static_cast<std::size_t>(rank)]);
    const auto awaited = static_cast<std::size_t>(shape_.node_of_rank[peer]);
    node_waits_[node * paired_nodes_ + awaited] += report.waits_by_peer[peer];
  }
  own.last_s = report.step_s;
  own.compute_s += std::max(0.0, report.step_s - report.wait_s);
  const double flat =
      placement_ ? flat_rows(*placement_, shape_.node_of_rank, rank, report.loads, shape_.ways)
                 : -1;
  window_.add(rank, report, flat);
  step_s_.observe(report.step_s);
  if (rank == 0) {
    latest_ = {true,
               report.loss,
               report.gradient_norm,
               report.learning_rate,
               report.checkpoint_step,
               report.plan_version,
               report.plans_adopted,
               report.plans_rejected,
               report.plans_failed,
               report.migrated_bytes};
  }
}

void JobMetrics::set_placement(std::shared_ptr<const Placement> placement) {
  const PlacementShape expected{shape_.layers, shape_.groups, shape_.experts, shape_.ranks};
  check(placement == nullptr || placement->shape() == expected, "a placement of another shape");
  placement_ = std::move(placement);
}

std::vector<prometheus::MetricFamily> JobMetrics::families(const ControlCounts& counts) const {
  return MetricFamilies(*this).all(counts);
}

}  // namespace cartesian
