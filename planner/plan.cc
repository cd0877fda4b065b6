#include "planner/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/index.h"
#include "base/random.h"
#include "planner/layer_trace.h"
#include "planner/parallel.h"
#include "planner/partition_search.h"
#include "planner/rank_packing.h"
#include "planner/replica_search.h"
#include "planner/starts.h"

namespace cartesian {

namespace {

// Tokens that Partition::move() goes through in a second, on a slow machine.
constexpr double kWorkPerSecond = 6e6;
constexpr double kShareOfStarts = 0.25;  // of the work, to find which start is best
constexpr double kShareOfReplicas = 0.6;
constexpr double kMovesPerLook = 6;  // how much longer a look of ReplicaCosts takes
constexpr std::int64_t kFewestSampled = 256;
constexpr std::int64_t kMostSampled = 4096;
constexpr double kAboveBalanced = 0.05;

std::int64_t share_of(std::int64_t work, double share) {
  return static_cast<std::int64_t>(share * static_cast<double>(work));
}

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

  /// [experts of A, then of B] ascending.
  using Ranks = std::vector<std::vector<int>>;

  Ranks balanced() {
    partition_.assign(balanced_start(partition_, limits_));
    return to_ranks(one_each());
  }

  Ranks plan(std::uint64_t seed, std::int64_t work, double least_saving) {
    const std::vector<int> even = balanced_start(partition_, limits_);
    partition_.assign(even);
    for (std::size_t node = 0; node < mean_.size(); ++node) {
      const auto load = static_cast<double>(partition_.node_load(static_cast<int>(node)));
      limits_.load[node] = std::max(limits_.load[node], load + kAboveBalanced * mean_[node]);
    }
    const std::int64_t for_replicas = has_room() ? share_of(work, kShareOfReplicas) : 0;
    work -= for_replicas;
    std::vector<int> best;
    double least = std::numeric_limits<double>::infinity();
    for (const std::vector<int>& start :
         {even, linear_start(layer_, topology_), cluster_start(partition_, limits_)}) {
      partition_.assign(start);
      if (!within_slots() || !repair(partition_, limits_)) {
        continue;
      }
      improve(partition_, limits_, {.seed = seed, .work = share_of(work, kShareOfStarts / 3)});
      if (partition_.cost() < least) {
        least = partition_.cost();
        best = partition_.assignment();
      }
    }
    partition_.assign(best);
    improve(partition_, limits_, {.seed = seed + 1, .work = share_of(work, 1 - kShareOfStarts)});
    return to_ranks(has_room() ? replicated(least_saving, for_replicas, seed) : one_each());
  }

 private:
  bool within_slots() const {
    for (int node = 0; node < partition_.nodes(); ++node) {
      if (partition_.node_size(node) > limits_.slots[as_index(node)]) {
        return false;
      }
    }
    return true;
  }

  bool has_room() const {
    return topology_.nodes() <= kMostReplicaNodes &&
           std::reduce(limits_.slots.begin(), limits_.slots.end()) > partition_.experts();
  }

  /// One slot of a node: an expert, and the choices that it will serve there.
  struct Slot {
    int expert;
    std::int64_t load;
  };

  /// [nodes] slots of the partition.
  std::vector<std::vector<Slot>> one_each() const {
    std::vector<std::vector<Slot>> slots(limits_.slots.size());
    for (int expert = 0; expert < partition_.experts(); ++expert) {
      slots[as_index(partition_.node_of(expert))].push_back({expert, partition_.load(expert)});
    }
    return slots;
  }

  /// The same with replicas in the slots that are left.
  std::vector<std::vector<Slot>> replicated(double least_saving, std::int64_t work,
                                            std::uint64_t seed) const {
    std::int64_t choices = 0;
    for (const LayerTrace::Group& group : layer_.groups) {
      choices += group.choices;
    }
    // Every expert is tried on every node once before the first is added.
    const std::int64_t looks = share_of(work, 1 / kMovesPerLook);
    const std::int64_t sample = looks / 4 / std::max<std::int64_t>(1, choices * topology_.nodes());
    ReplicaCosts costs(
        layer_, topology_, limits_, partition_,
        {.flow = options_.flow, .sample = std::clamp(sample, kFewestSampled, kMostSampled)});
    place_replicas(costs, partition_, {.least_saving = least_saving, .work = looks, .seed = seed});
    const std::vector<double> served = costs.served();
    std::vector<std::vector<Slot>> slots(limits_.slots.size());
    for (std::size_t node = 0; node < slots.size(); ++node) {
      for (int expert = 0; expert < partition_.experts(); ++expert) {
        if ((costs.nodes_of()[as_index(expert)] & node_bit(static_cast<int>(node))) != 0) {
          slots[node].push_back(
              {expert, std::llround(served[as_index(expert) * slots.size() + node])});
        }
      }
    }
    return slots;
  }

  Ranks to_ranks(const std::vector<std::vector<Slot>>& slots) const {
    Ranks ranks(as_index(partition_.experts()));
    for (int node = 0; node < partition_.nodes(); ++node) {
      std::vector<std::int64_t> loads;
      for (const Slot& slot : slots[as_index(node)]) {
        loads.push_back(slot.load);
      }
      const auto on_node = topology_.ranks_of_node(node);
      const std::vector<int> local = pack_ranks(loads, static_cast<int>(on_node.size()), slots_);
      for (std::size_t i = 0; i < loads.size(); ++i) {
        ranks[as_index(slots[as_index(node)][i].expert)].push_back(on_node[as_index(local[i])]);
      }
    }
    for (std::vector<int>& of_expert : ranks) {
      std::ranges::sort(of_expert);
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
                const std::function<LayerPlanner::Ranks(LayerPlanner&, std::size_t)>& plan) {
  const std::vector<LayerTrace> layers = layers_of(trace);
  const PlacementShape shape = placement_shape(trace, cluster.topology.ranks());
  const int slots = slots_per_rank(shape, options);
  check_memory(trace, cluster, shape, slots);
  std::vector<LayerPlanner::Ranks> ranks(layers.size());
  for_each_on_threads(layers.size(), options.threads, [&](std::size_t i) {
    LayerPlanner planner(layers[i], cluster, options, slots);
    ranks[i] = plan(planner, i);
  });
  std::vector<std::vector<int>> replicas;
  for (LayerPlanner::Ranks& of_layer : ranks) {
    std::ranges::move(of_layer, std::back_inserter(replicas));
  }
  return {shape, std::move(replicas)};
}

/// Copies of the trace's tokens whose bytes, there and back, are those of one replica's gradients.
double least_saving(const RoutingTrace& trace, const PlanOptions& options) {
  double step = options.tokens_per_step;
  if (step == 0) {
    step = static_cast<double>(trace.tokens_per_step > 0 ? trace.tokens_per_step : trace.tokens);
  }
  // 2 * 3 d D elements of gradients against 2 d of a copy, in elements of one size.
  return 3 * static_cast<double>(trace.expert_width) * static_cast<double>(trace.tokens) / step;
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
  const int more = static_cast<int>(std::ceil(experts * (1 + options.redundancy) / shape.ranks));
  return options.slots > 0 ? options.slots : std::max(needed, more);
}

Placement plan_placement(const RoutingTrace& trace, const Cluster& cluster,
                         const PlanOptions& options) {
  if (options.redundancy > 0 && cluster.topology.nodes() > kMostReplicaNodes) {
    throw ConfigError(fmt::format("replicas are planned for up to {} nodes; the cluster has {}",
                                  kMostReplicaNodes, cluster.topology.nodes()));
  }
  const std::size_t layers = layers_of(trace).size();
  const auto work =
      static_cast<std::int64_t>(options.time_budget_s * kWorkPerSecond /
                                static_cast<double>(std::max<std::size_t>(1, layers)));
  Placement placement =
      place(trace, cluster, options, [&](LayerPlanner& planner, std::size_t layer) {
        return planner.plan(random_bits(random_key(options.seed, "plan"), layer), work,
                            least_saving(trace, options));
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
  const auto nodes = as_index(topology.nodes());
  std::vector<float> scores;
  for (std::size_t index = 0; index < layers.size(); ++index) {
    const LayerTrace& layer = layers[index];
    std::vector<double> hosts(as_index(layer.experts) * nodes);
    std::vector<double> tokens(as_index(layer.experts));
    double choices = 0;
    std::vector<bool> hosting(nodes);
    for (std::int64_t token = 0; token < layer.tokens; ++token) {
      hosting.assign(nodes, false);
      for (const std::int16_t b : layer.groups[1].of(token)) {
        if (b >= 0) {
          for (const int rank : placement.replicas(static_cast<int>(index), 1, b)) {
            hosting[as_index(topology.node(rank))] = true;
          }
        }
      }
      for (const std::int16_t a : layer.groups[0].of(token)) {
        if (a < 0) {
          continue;
        }
        ++choices;
        ++tokens[as_index(a)];
        for (std::size_t node = 0; node < nodes; ++node) {
          hosts[as_index(a) * nodes + node] += hosting[node] ? 1 : 0;
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
