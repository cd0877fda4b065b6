#include "planner/simulation.h"

#include <fmt/format.h>

#include <optional>

#include "base/error.h"
#include "base/index.h"
#include "planner/gradient_rings.h"
#include "planner/layer_schedule.h"
#include "planner/parallel.h"
#include "planner/step_simulator.h"
#include "planner/step_time.h"

namespace cartesian {

namespace {

std::vector<LayerSchedule> make_schedules(const RoutingTrace& trace, const TokenSplit& split,
                                          const Topology& topology, const Placement& placement,
                                          const SimulationOptions& options) {
  const std::vector<LayerTrace> layers = layers_of(trace);
  std::vector<std::optional<LayerSchedule>> made(layers.size());
  for_each_on_threads(layers.size(), options.threads, [&](std::size_t index) {
    made[index].emplace(layers[index], static_cast<int>(index), split, placement, topology,
                        options.flow, options.rule);
  });
  std::vector<LayerSchedule> schedules;
  for (std::optional<LayerSchedule>& schedule : made) {
    schedules.push_back(*std::move(schedule));
  }
  return schedules;
}

StepWork make_work(const RoutingTrace& trace, const Cluster& cluster, const Placement& placement,
                   const SimulationOptions& options) {
  const int ranks = cluster.topology.ranks();
  const TokenSplit split = split_tokens(trace, ranks, options.chunks);
  const RowSizes sizes = row_sizes(trace);
  RowSizes shared = sizes;
  shared.expert_width = options.shared_width;
  const double scale =
      trace.tokens > 0 ? tokens_of_step(trace, options) / static_cast<double>(trace.tokens) : 0;
  StepWork work;
  work.layers = make_schedules(trace, split, cluster.topology, placement, options);
  work.rings = gradient_rings(placement);
  work.attention_s.resize(as_index(ranks));
  for (const std::int32_t home : split.home) {
    work.attention_s[as_index(home)] += scale * options.attention_flops / cluster.rank_flops(home);
  }
  work.row_bytes = scale * sizes.hidden * sizes.element_bytes;
  work.expert_s = scale * expert_flops(sizes) / cluster.flops;
  work.shared_s = scale * expert_flops(shared) / cluster.flops;
  work.router_s = scale * router_flops(sizes) / cluster.flops;
  work.gradient_bytes = 3 * sizes.hidden * sizes.expert_width * sizes.element_bytes;
  return work;
}

StepSimulation::Phase of_all(const Resources& resources) {
  return {.compute = resources.busy({ResourceKind::compute}),
          .intra = resources.busy({ResourceKind::link_out, ResourceKind::link_in}),
          .inter = resources.busy({ResourceKind::card_out, ResourceKind::card_in})};
}

StepSimulation::Phase of_phase(const Resources& resources, StepPhase phase) {
  return {.compute = resources.busy(phase, {ResourceKind::compute}),
          .intra = resources.busy(phase, {ResourceKind::link_out, ResourceKind::link_in}),
          .inter = resources.busy(phase, {ResourceKind::card_out, ResourceKind::card_in})};
}

}  // namespace

double tokens_of_step(const RoutingTrace& trace, const SimulationOptions& options) {
  if (options.tokens_per_step > 0) {
    return options.tokens_per_step;
  }
  return static_cast<double>(trace.tokens_per_step > 0 ? trace.tokens_per_step : trace.tokens);
}

StepSimulation simulate_step(const RoutingTrace& trace, const Cluster& cluster,
                             const Placement& placement, const SimulationOptions& options) {
  if (options.chunks < 1 || options.chunks > kMostChunks) {
    throw ConfigError(fmt::format("{} chunks are not within [1, {}]", options.chunks, kMostChunks));
  }
  const bool by_gates = options.rule == PivotRule::gate && placement.score_nodes() > 0;
  const StepWork work =
      make_work(trace, cluster, by_gates ? placement.without_pivot_scores() : placement, options);
  Timeline timeline(cluster.topology, options.timeline_nodes);
  StepSimulator simulator(work, cluster, timeline);
  StepSimulation result;
  result.seconds = simulator.run();
  result.all = of_all(simulator.resources());
  for (int i = 0; i < kStepPhases; ++i) {
    const auto name = static_cast<StepPhase>(i);
    StepSimulation::Phase& phase = result.phases.at(as_index(i));
    phase = of_phase(simulator.resources(), name);
    phase.intra_bytes = simulator.bytes(name, false);
    phase.inter_bytes = simulator.bytes(name, true);
    result.all.intra_bytes += phase.intra_bytes;
    result.all.inter_bytes += phase.inter_bytes;
  }
  result.spans = timeline.take();
  return result;
}

}  // namespace cartesian
