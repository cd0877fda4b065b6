#include "planner/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/random.h"
#include "planner/layer_trace.h"
#include "planner/parallel.h"
#include "planner/partition_search.h"
#include "planner/rank_packing.h"
#include "planner/starts.h"

namespace cartesian {

namespace {

// Tokens that Partition::move() goes through in a second, on a slow machine.
constexpr double kWorkPerSecond = 4e6;
constexpr double kShareOfStarts = 0.25;  // of the work, to find which start is best
constexpr double kAboveBalanced = 0.05;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Everything of one layer.
class LayerPlanner {
 public:
  LayerPlanner(const LayerTrace& layer, const Cluster& cluster, const PlanOptions& options,
               int slots)
      : layer_(layer),
        topology_(cluster.topology),
        options_(options),
        slots_(slots),
        partition_(layer, visit_costs(cluster.topology, options.flow, layer.groups.size())) {
    std::int64_t total = 0;
    for (int expert = 0; expert < partition_.experts(); ++expert) {
      total += partition_.load(expert);
    }
    for (int node = 0; node < topology_.nodes(); ++node) {
      const auto ranks = static_cast<int>(topology_.ranks_of_node(node).size());
      limits_.slots.push_back(ranks * slots_);
      mean_.push_back(static_cast<double>(total) * ranks / topology_.ranks());
      limits_.load.push_back(options_.load_cap * mean_.back());
    }
  }

  /// [experts of A, then of B] ranks.
  std::vector<int> balanced() {
    partition_.assign(balanced_start(partition_, limits_));
    return to_ranks();
  }

  std::vector<int> plan(std::uint64_t seed, std::int64_t work) {
    const std::vector<int> even = balanced_start(partition_, limits_);
    partition_.assign(even);
    for (std::size_t node = 0; node < mean_.size(); ++node) {
      const auto load = static_cast<double>(partition_.node_load(static_cast<int>(node)));
      limits_.load[node] = std::max(limits_.load[node], load + kAboveBalanced * mean_[node]);
    }
    std::vector<int> best;
    double least = std::numeric_limits<double>::infinity();
    for (const std::vector<int>& start :
         {even, linear_start(layer_, topology_), cluster_start(partition_, limits_)}) {
      partition_.assign(start);
      if (!within_slots() || !repair(partition_, limits_)) {
        continue;
      }
      improve(partition_, limits_,
              {.seed = seed,
               .work = static_cast<std::int64_t>(kShareOfStarts / 3 * static_cast<double>(work))});
      if (partition_.cost() < least) {
        least = partition_.cost();
        best = partition_.assignment();
      }
    }
    partition_.assign(best);
    improve(partition_, limits_,
            {.seed = seed + 1,
             .work = static_cast<std::int64_t>((1 - kShareOfStarts) * static_cast<double>(work))});
    return to_ranks();
  }

 private:
  bool within_slots() const {
    for (int node = 0; node < partition_.nodes(); ++node) {
      if (partition_.node_size(node) > limits_.slots[at(node)]) {
        return false;
      }
    }
    return true;
  }

  std::vector<int> to_ranks() const {
    std::vector<int> ranks(at(partition_.experts()));
    for (int node = 0; node < partition_.nodes(); ++node) {
      std::vector<int> members;
      std::vector<std::int64_t> loads;
      for (int expert = 0; expert < partition_.experts(); ++expert) {
        if (partition_.node_of(expert) == node) {
          members.push_back(expert);
          loads.push_back(partition_.load(expert));
        }
      }
      const auto on_node = topology_.ranks_of_node(node);
      const std::vector<int> local = pack_ranks(loads, static_cast<int>(on_node.size()), slots_);
      for (std::size_t i = 0; i < members.size(); ++i) {
        ranks[at(members[i])] = on_node[at(local[i])];
      }
    }
    return ranks;
  }

  const LayerTrace& layer_;
  const Topology& topology_;
  const PlanOptions& options_;
  int slots_;
  Partition partition_;
  NodeLimits limits_;
  std::vector<double> mean_;  // [nodes] load, if all ranks had the same
};

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
                const std::function<std::vector<int>(LayerPlanner&, std::size_t)>& plan) {
  const std::vector<LayerTrace> layers = layers_of(trace);
  const PlacementShape shape = placement_shape(trace, cluster.topology.ranks());
  const int slots = slots_per_rank(shape, options);
  check_memory(trace, cluster, shape, slots);
  std::vector<std::vector<int>> ranks(layers.size());
  for_each_on_threads(layers.size(), options.threads, [&](std::size_t i) {
    LayerPlanner planner(layers[i], cluster, options, slots);
    ranks[i] = plan(planner, i);
  });
  std::vector<std::vector<int>> replicas;
  for (const std::vector<int>& of_layer : ranks) {
    for (const int rank : of_layer) {
      replicas.push_back({rank});
    }
  }
  return {shape, std::move(replicas)};
}

}  // namespace

double expert_bytes(const RoutingTrace& trace) {
  constexpr double kBytesPerParameter = 4 * sizeof(float);  // weight, gradient, two moments
  return 3 * static_cast<double>(trace.hidden) * static_cast<double>(trace.expert_width) *
         kBytesPerParameter;
}

int slots_per_rank(const PlacementShape& shape, const PlanOptions& options) {
  const int experts = shape.groups * shape.experts;
  const int needed = (experts + shape.ranks - 1) / shape.ranks;
  if (options.slots > 0 && options.slots < needed) {
    throw ConfigError(fmt::format(
        "{} slots on each of {} ranks hold {} experts, but a layer has {}: at least {} are needed",
        options.slots, shape.ranks, options.slots * shape.ranks, experts, needed));
  }
  return std::max(options.slots, needed);
}

Placement plan_placement(const RoutingTrace& trace, const Cluster& cluster,
                         const PlanOptions& options) {
  const std::size_t layers = layers_of(trace).size();
  const auto work =
      static_cast<std::int64_t>(options.time_budget_s * kWorkPerSecond /
                                static_cast<double>(std::max<std::size_t>(1, layers)));
  Placement placement =
      place(trace, cluster, options, [&](LayerPlanner& planner, std::size_t layer) {
        return planner.plan(random_bits(random_key(options.seed, "plan"), layer), work);
      });
  if (options.flow != Flow::pivot || placement.shape().groups != 2) {
    return placement;
  }
  return placement.with_pivot_scores(cluster.topology.nodes(),
                                     pivot_scores(trace, placement, cluster.topology));
}

Placement balanced_placement(const RoutingTrace& trace, const Cluster& cluster,
                             const PlanOptions& options) {
  return place(trace, cluster, options,
               [](LayerPlanner& planner, std::size_t) { return planner.balanced(); });
}

std::vector<float> pivot_scores(const RoutingTrace& trace, const Placement& placement,
                                const Topology& topology) {
  const std::vector<LayerTrace> layers = layers_of(trace);
  const auto nodes = at(topology.nodes());
  std::vector<float> scores;
  for (std::size_t index = 0; index < layers.size(); ++index) {
    const LayerTrace& layer = layers[index];
    std::vector<double> hosts(at(layer.experts) * nodes);
    std::vector<double> tokens(at(layer.experts));
    double choices = 0;
    std::vector<bool> hosting(nodes);
    for (std::int64_t token = 0; token < layer.tokens; ++token) {
      hosting.assign(nodes, false);
      for (const std::int16_t b : layer.groups[1].of(token)) {
        if (b >= 0) {
          for (const int rank : placement.replicas(static_cast<int>(index), 1, b)) {
            hosting[at(topology.node(rank))] = true;
          }
        }
      }
      for (const std::int16_t a : layer.groups[0].of(token)) {
        if (a < 0) {
          continue;
        }
        ++choices;
        ++tokens[at(a)];
        for (std::size_t node = 0; node < nodes; ++node) {
          hosts[at(a) * nodes + node] += hosting[node] ? 1 : 0;
        }
      }
    }
    const double chosen = choices / static_cast<double>(std::max<std::int64_t>(1, layer.tokens));
    for (std::size_t a = 0; a < tokens.size(); ++a) {
      for (std::size_t node = 0; node < nodes; ++node) {
        scores.push_back(
            static_cast<float>(tokens[a] > 0 ? hosts[a * nodes + node] / tokens[a] / chosen : 0));
      }
    }
  }
  return scores;
}

}  // namespace cartesian
