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

JobFigures::JobFigures(JobShape its_shape, const JobMetricsOptions& options)
    : shape(std::move(its_shape)),
      expert_layers(cartesian::expert_layers(options.experts, shape.layers)),
      window(shape),
      totals(shape),
      ranks(static_cast<std::size_t>(shape.ranks)),
      paired_nodes(cartesian::paired_nodes(shape)),
      node_waits(paired_nodes * paired_nodes),
      step_s({0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250}) {}

JobMetrics::JobMetrics(JobShape shape, const JobMetricsOptions& options, const Clock& clock)
    : clock_(clock),
      window_(shape, window_steps(options)),
      step_since_(clock.now()),
      figures_(std::move(shape), options) {}

void JobMetrics::add(int rank, const StepReport& report) {
  const std::vector<int>& nodes = figures_.shape.node_of_rank;
  if (report.step > figures_.step) {
    figures_.step = report.step;
    step_since_ = clock_.now();
  }
  figures_.totals.add(rank, report);
  const std::size_t paired = figures_.paired_nodes;
  for (std::size_t peer = 0; paired > 0 && peer < report.waits_by_peer.size(); ++peer) {
    const auto node = static_cast<std::size_t>(nodes[static_cast<std::size_t>(rank)]);
    const auto awaited = static_cast<std::size_t>(nodes[peer]);
    figures_.node_waits[node * paired + awaited] += report.waits_by_peer[peer];
  }
  JobFigures::RankSteps& own = figures_.ranks[static_cast<std::size_t>(rank)];
  own.last_s = report.step_s;
  own.compute_s += std::max(0.0, report.step_s - report.wait_s);
  const auto& placement = figures_.placement;
  window_.add(
      rank, report,
      placement ? flat_rows(*placement, nodes, rank, report.loads, figures_.shape.ways) : -1);
  figures_.step_s.observe(report.step_s);
  if (rank == 0) {
    figures_.latest = {true,
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
  const JobShape& shape = figures_.shape;
  const PlacementShape expected{shape.layers, shape.groups, shape.experts, shape.ranks};
  check(placement == nullptr || placement->shape() == expected, "a placement of another shape");
  figures_.placement = std::move(placement);
}

JobFigures JobMetrics::figures() const {
  JobFigures figures = figures_;
  figures.window = window_.sum();
  figures.step_age = step_age();
  return figures;
}

std::vector<prometheus::MetricFamily> families(const JobFigures& figures,
                                               const ControlCounts& counts) {
  return MetricFamilies(figures).all(counts);
}

}  // namespace cartesian
