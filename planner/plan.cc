#include "planner/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/error.h"
#include "base/index.h"
#include "base/random.h"
#include "planner/layer_planner.h"
#include "planner/parallel.h"
#include "planner/replica_costs.h"
#include "planner/step_time.h"

namespace cartesian {

namespace {

// Tokens that Partition::move() goes through in a second, on a slow machine.
constexpr double kWorkPerSecond = 6e6;

void check_running(const Placement& running, const PlacementShape& shape) {
  const PlacementShape& has = running.shape();
  if (has != shape) {
    throw ConfigError(fmt::format(
        "the running placement has {} layers of {} x {} experts on {} ranks, but the trace and the "
        "topology have {} of {} x {} on {}",
        has.layers, has.groups, has.experts, has.ranks, shape.layers, shape.groups, shape.experts,
        shape.ranks));
  }
}

/// Also refuses what is not a number.
void check_options(const PlanOptions& options) {
  const auto check_within = [](const char* name, double value, double least, double most) {
    if (!(value >= least && value <= most)) {
      throw ConfigError(
          fmt::format("{} of a plan is {:g}, not within [{:g}, {:g}]", name, value, least, most));
    }
  };
  constexpr double kAny = std::numeric_limits<double>::infinity();
  check_within("load_cap", options.load_cap, 1, kAny);
  check_within("load_margin", options.load_margin, 0, kAny);
  check_within("redundancy", options.redundancy, 0, kAny);
  check_within("tokens_per_step", options.tokens_per_step, 0, kMostTokensPerStep);
  check_within("time_budget_s", options.time_budget_s, 0, kAny);
  if (!(options.horizon_steps > 0)) {
    throw ConfigError(
        fmt::format("horizon_steps of a plan is {:g}, not above 0", options.horizon_steps));
  }
}

void check_memory(const RoutingTrace& trace, const Cluster& cluster, const PlacementShape& shape,
                  int slots) {
  constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
  const double slot = shape.layers * expert_bytes(trace);
  if (cluster.memory_bytes > 0 && slots * slot > cluster.memory_bytes) {
    const auto fit = static_cast<int>(cluster.memory_bytes / slot);
    const int experts = shape.groups * shape.experts;
    throw ConfigError(fmt::format(
        "{} slots of {} MoE layers need {:.3g} GiB on each rank, {:.3g} GiB more than memory_gib "
        "gives it: {}",
        slots, shape.layers, slots * slot / kGiB, (slots * slot - cluster.memory_bytes) / kGiB,
        fit < 1 ? "not even one slot fits"
                : fmt::format("{} slot{} fit, which takes {} ranks", fit, fit == 1 ? "" : "s",
                              (experts + fit - 1) / fit)));
  }
}

/// Plans every layer by itself, and puts the layers together.
Placement place(const RoutingTrace& trace, const Cluster& cluster, const PlanOptions& options,
                const std::function<ExpertRanks(const LayerTrace&, std::size_t, int)>& plan) {
  const std::vector<LayerTrace> layers = layers_of(trace);
  const PlacementShape shape = placement_shape(trace, cluster.topology.ranks());
  const int slots = slots_per_rank(shape, options);
  check_memory(trace, cluster, shape, slots);
  std::vector<ExpertRanks> ranks(layers.size());
  for_each_on_threads(layers.size(), options.threads, [&](std::size_t i) {
    check_homes(layers[i], cluster.topology);
    ranks[i] = plan(layers[i], i, slots);
  });
  std::vector<std::vector<int>> replicas;
  for (ExpertRanks& of_layer : ranks) {
    std::ranges::move(of_layer, std::back_inserter(replicas));
  }
  return {shape, std::move(replicas)};
}

/// Tokens of a step for one of the trace.
double step_scale(const RoutingTrace& trace, const PlanOptions& options) {
  return tokens_per_step(trace, options) /
         static_cast<double>(std::max<std::int64_t>(1, trace.tokens));
}

/// Copies of the trace's tokens whose bytes, there and back, are those of one replica's gradients.
double least_saving(const RoutingTrace& trace, const PlanOptions& options) {
  // 2 * 3 d D elements of gradients against 2 d of a copy, in elements of one size.
  return 3 * static_cast<double>(trace.expert_width) / step_scale(trace, options);
}

/// Copies of the trace's tokens whose bytes, there and back in every step of the horizon, are those
/// of an expert that moves.
double worth_of_moving(const RoutingTrace& trace, const PlanOptions& options) {
  const RowSizes sizes = row_sizes(trace);
  return moving_bytes(trace) / (2 * sizes.hidden * sizes.element_bytes) /
         step_scale(trace, options) / options.horizon_steps;
}

/// Of a step, that a copy of one of the trace's tokens takes, forward and backward, on cards that
/// have all as many: until the slowest of them is done.
double copy_seconds(const RoutingTrace& trace, const Cluster& cluster, const PlanOptions& options) {
  const RowSizes sizes = row_sizes(trace);
  const std::vector<double> bytes(as_index(cluster.topology.nodes()),
                                  2 * sizes.hidden * sizes.element_bytes);
  return cluster.cards_s(bytes) / cluster.topology.nodes() * step_scale(trace, options);
}

/// The running placement's ranks of one layer.
ExpertRanks ranks_of(const Placement& placement, std::size_t layer) {
  ExpertRanks ranks;
  for (int group = 0; group < placement.shape().groups; ++group) {
    for (int expert = 0; expert < placement.shape().experts; ++expert) {
      const auto held = placement.replicas(static_cast<int>(layer), group, expert);
      ranks.emplace_back(held.begin(), held.end());
    }
  }
  return ranks;
}

}  // namespace

Objective objective_named(std::string_view name) {
  if (name == "auto") {
    return Objective::copies_in_time;
  }
  if (name == "step") {
    return Objective::step_time;
  }
  if (name == "copies") {
    return Objective::copies;
  }
  throw ConfigError(fmt::format("objective '{}' of a plan is none of auto, step, copies", name));
}

std::int64_t work_of_layer(const PlanOptions& options, std::size_t layers) {
  constexpr double kMostWork = 1e15;  // what is made of it stays within 64 bits
  const double work = options.time_budget_s * kWorkPerSecond;
  return static_cast<std::int64_t>(std::min(work, kMostWork) /
                                   static_cast<double>(std::max<std::size_t>(1, layers)));
}

double expert_bytes(const RoutingTrace& trace) {
  constexpr double kBytesPerParameter = 4 * sizeof(float);  // weight, gradient, two moments
  return 3 * static_cast<double>(trace.hidden) * static_cast<double>(trace.expert_width) *
         kBytesPerParameter;
}

double moving_bytes(const RoutingTrace& trace) { return expert_bytes(trace) * 3 / 4; }

double tokens_per_step(const RoutingTrace& trace, const PlanOptions& options) {
  if (options.tokens_per_step > 0) {
    return options.tokens_per_step;
  }
  return static_cast<double>(
      std::max<std::int64_t>(1, trace.tokens_per_step > 0 ? trace.tokens_per_step : trace.tokens));
}

int slots_per_rank(const PlacementShape& shape, const PlanOptions& options) {
  const int experts = shape.groups * shape.experts;
  const int needed = (experts + shape.ranks - 1) / shape.ranks;
  if (options.slots > 0 && options.slots < needed) {
    throw ConfigError(fmt::format(
        "{} slots on each of {} ranks hold {} experts, but a layer has {}: at least {} are needed",
        options.slots, shape.ranks, options.slots * shape.ranks, experts, needed));
  }
  check_options(options);
  const auto wanted =
      options.slots > 0
          ? options.slots
          : static_cast<int>(std::min(std::ceil(experts * (1 + options.redundancy) / shape.ranks),
                                      static_cast<double>(experts)));
  const int slots = std::clamp(wanted, needed, experts);
  if (std::int64_t{slots} * shape.ranks > std::numeric_limits<int>::max()) {
    throw ConfigError(fmt::format("{} slots on each of {} ranks are more than can be planned: {}",
                                  slots, shape.ranks, std::numeric_limits<int>::max()));
  }
  return slots;
}

Placement plan_placement(const RoutingTrace& trace, const Cluster& cluster,
                         const PlanOptions& options) {
  if (options.redundancy > 0 && cluster.topology.nodes() > kMostReplicaNodes) {
    throw ConfigError(fmt::format("replicas are planned for up to {} nodes; the cluster has {}",
                                  kMostReplicaNodes, cluster.topology.nodes()));
  }
  if (options.running != nullptr) {
    check_running(*options.running, placement_shape(trace, cluster.topology.ranks()));
  }
  const std::size_t layers = layers_of(trace).size();
  const std::int64_t work = work_of_layer(options, layers);
  std::vector<char> scored(layers);  // not of bits: each is written by a thread
  Placement placement =
      place(trace, cluster, options, [&](const LayerTrace& layer, std::size_t index, int slots) {
        ExpertRanks running;
        if (options.running != nullptr) {
          running = ranks_of(*options.running, index);
        }
        LayerPlanner planner(layer, cluster, options, slots,
                             {.seed = random_bits(random_key(options.seed, "plan"), index),
                              .work = work,
                              .least_saving = least_saving(trace, options),
                              .copy_s = copy_seconds(trace, cluster, options),
                              .sizes = row_sizes(trace),
                              .tokens = tokens_per_step(trace, options),
                              .running = options.running != nullptr ? &running : nullptr,
                              .away = worth_of_moving(trace, options)});
        LayerPlan plan = planner.plan();
        scored[index] = plan.scored ? 1 : 0;
        return std::move(plan.ranks);
      });
  if (options.flow != Flow::pivot || placement.shape().groups != 2) {
    return placement;
  }
  std::vector<float> scores = pivot_scores(trace, placement, cluster.topology);
  const std::size_t of_layer = scores.size() / std::max<std::size_t>(1, layers);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    scores[i] = scored[i / of_layer] != 0 ? scores[i] : 0;  // none speak for any node, then
  }
  return placement.with_pivot_scores(cluster.topology.nodes(), std::move(scores));
}

Placement balanced_placement(const RoutingTrace& trace, const Cluster& cluster,
                             const PlanOptions& options) {
  const std::vector<double> shares = load_shares(cluster);
  return place(trace, cluster, options, [&](const LayerTrace& layer, std::size_t, int slots) {
    return balance_layer(layer, cluster.topology, slots, shares);
  });
}

std::vector<float> pivot_scores(const LayerTrace& layer, int index, const Placement& placement,
                                const Topology& topology) {
  const auto nodes = as_index(topology.nodes());
  std::vector<double> hosts(as_index(layer.experts) * nodes);
  std::vector<double> tokens(as_index(layer.experts));
  double choices = 0;
  std::vector<std::size_t> hosting;  // of the token's experts of B
  for (std::int64_t token = 0; token < layer.tokens; ++token) {
    hosting.clear();
    for (const std::int16_t b : layer.groups[1].of(token)) {
      if (b >= 0) {
        for (const int rank : placement.replicas(index, 1, b)) {
          hosting.push_back(as_index(topology.node(rank)));
        }
      }
    }
    std::ranges::sort(hosting);
    hosting.erase(std::unique(hosting.begin(), hosting.end()), hosting.end());
    for (const std::int16_t a : layer.groups[0].of(token)) {
      if (a < 0) {
        continue;
      }
      ++choices;
      ++tokens[as_index(a)];
      for (const std::size_t node : hosting) {
        ++hosts[as_index(a) * nodes + node];
      }
    }
  }
  const double chosen = choices / static_cast<double>(std::max<std::int64_t>(1, layer.tokens));
  std::vector<float> scores;
  for (std::size_t a = 0; a < tokens.size(); ++a) {
    for (std::size_t node = 0; node < nodes; ++node) {
      scores.push_back(
          static_cast<float>(tokens[a] > 0 ? hosts[a * nodes + node] / tokens[a] / chosen : 0));
    }
  }
  return scores;
}

std::vector<float> pivot_scores(const RoutingTrace& trace, const Placement& placement,
                                const Topology& topology) {
  const std::vector<LayerTrace> layers = layers_of(trace);
  std::vector<float> scores;
  for (std::size_t index = 0; index < layers.size(); ++index) {
    const std::vector<float> of_layer =
        pivot_scores(layers[index], static_cast<int>(index), placement, topology);
    scores.insert(scores.end(), of_layer.begin(), of_layer.end());
  }
  return scores;
}

}  // namespace cartesian
