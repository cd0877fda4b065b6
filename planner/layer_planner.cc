#include "planner/layer_planner.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <numeric>

#include "base/index.h"
#include "planner/rank_packing.h"
#include "planner/replica_plan.h"
#include "planner/starts.h"

namespace cartesian {

namespace {

constexpr double kShareOfReplicas = 0.8;  // of the work, if there is room for any
constexpr double kMovesPerLook = 2;       // how much longer a look of ReplicaCosts takes
constexpr double kAboveBalanced = 0.05;
constexpr double kRounding = 1e-9;
constexpr double kGroupsMatter = 0.05;  // of a step's time
constexpr double kGroupsPay = 0.03;

std::int64_t share_of(std::int64_t work, double share) {
  return static_cast<std::int64_t>(share * static_cast<double>(work));
}

/// Within what is asked for, or if balancing does not reach it within a little more than it does
/// reach; by so much that loads of other text, which are not quite the same, are so, too.
double aimed_load(const PlanOptions& options, double balanced) {
  const double cap = options.load_cap;
  const auto free = [&](double above) { return std::min(options.load_margin, above / 3); };
  const double load = balanced <= cap ? std::max(balanced, cap - free(cap - 1))
                                      : balanced + kAboveBalanced - free(kAboveBalanced);
  return load * (1 + kRounding);
}

}  // namespace

LayerPlanner::LayerPlanner(const LayerTrace& layer, const Cluster& cluster,
                           const PlanOptions& options, int slots)
    : layer_(layer),
      topology_(cluster.topology),
      options_(options),
      groups_(static_cast<int>(layer.groups.size())),
      loads_(expert_loads(layer)),
      ranks_{.ranks = {}, .slots = slots, .load = 0} {
  for (std::size_t expert = 0; expert < loads_.size(); ++expert) {
    total_.add(static_cast<int>(expert) / layer_.experts, static_cast<double>(loads_[expert]));
  }
  for (int node = 0; node < topology_.nodes(); ++node) {
    ranks_.ranks.push_back(static_cast<int>(topology_.ranks_of_node(node).size()));
    limits_.slots.push_back(ranks_.ranks.back() * slots);
  }
}

ExpertRanks LayerPlanner::balanced() const {
  return to_ranks(balance_nodes(loads_, groups_, limits_.slots, topology_.ranks()), nullptr);
}

ExpertRanks LayerPlanner::plan(const Task& task) {
  all_ = std::make_shared<CoActivation>(layer_);
  set_limits();
  const std::int64_t for_replicas = has_room() ? share_of(task.work, kShareOfReplicas) : 0;
  const Nodes nodes = search(task, task.work - for_replicas);
  return to_ranks(has_room() ? replicated(task, nodes, for_replicas) : one_each(nodes),
                  task.running);
}

/// The most loaded node over the mean, by both groups.
double LayerPlanner::worst_node(const std::vector<Loads>& loads) const {
  double worst = 1;
  for (std::size_t node = 0; node < loads.size(); ++node) {
    if (total_.both() > 0) {
      worst = std::max(worst,
                       loads[node].both() * topology_.ranks() / ranks_.ranks[node] / total_.both());
    }
  }
  return worst;
}

/// The same, of A or of B alone.
double LayerPlanner::worst_of_group(const std::vector<Loads>& loads) const {
  double worst = 1;
  for (std::size_t node = 0; node < loads.size(); ++node) {
    for (std::size_t group = 0; group < as_index(groups_); ++group) {
      if (total_.of_group.at(group) > 0) {
        worst = std::max(worst, loads[node].of_group.at(group) * topology_.ranks() /
                                    ranks_.ranks[node] / total_.of_group.at(group));
      }
    }
  }
  return worst;
}

/// `load` and `group`: over the mean.
NodeLimits LayerPlanner::limits_of(double load, std::optional<double> group) const {
  NodeLimits limits;
  for (const int ranks : ranks_.ranks) {
    const double share = static_cast<double>(ranks) / topology_.ranks();
    limits.slots.push_back(ranks * ranks_.slots);
    limits.load.push_back(load * total_.both() * share);
    for (std::size_t g = 0; group && g < as_index(groups_); ++g) {
      limits.group_load.at(g).push_back(*group * total_.of_group.at(g) * share);
    }
  }
  return limits;
}

/// By what balancing reaches, of both groups together or of each by itself.
void LayerPlanner::set_limits() {
  const Nodes by_group = balanced_assignment(loads_, groups_, limits_.slots);
  const Nodes together = balanced_start(loads_, limits_);
  const auto worst_rank = [&](const Nodes& nodes) {
    const auto most = most_loaded_ranks(*all_, nodes, ranks_);
    return total_.both() > 0 ? static_cast<double>(*std::ranges::max_element(most)) *
                                   topology_.ranks() / total_.both()
                             : 1;
  };
  const double rank = aimed_load(options_, std::min(worst_rank(by_group), worst_rank(together)));
  ranks_.load = rank * total_.both() / topology_.ranks();
  const double load = aimed_load(
      options_, std::min(worst_node(node_loads(by_group)), worst_node(node_loads(together))));
  limits_ = limits_of(load, std::nullopt);
  group_limits_ = limits_of(load, aimed_load(options_, worst_of_group(node_loads(by_group))));
}

/// Replicas reach more.
NodeLimits LayerPlanner::replica_limits() const {
  std::vector<Loads> loads(ranks_.ranks.size());
  const Slots slots = balance_nodes(loads_, groups_, limits_.slots, topology_.nodes());
  for (std::size_t node = 0; node < slots.size(); ++node) {
    for (const Slot& slot : slots[node]) {
      loads[node].add(slot.group, static_cast<double>(slot.load));
    }
  }
  NodeLimits limits = limits_of(aimed_load(options_, worst_node(loads)),
                                limits_.group_load[0].empty()
                                    ? std::nullopt
                                    : std::optional(aimed_load(options_, worst_of_group(loads))));
  for (std::size_t node = 0; node < limits.load.size(); ++node) {
    limits.load[node] = std::min(limits.load[node], limits_.load[node]);
    for (std::size_t group = 0; group < limits.group_load.size(); ++group) {
      if (!limits.group_load.at(group).empty()) {
        limits.group_load.at(group)[node] =
            std::min(limits.group_load.at(group)[node], limits_.group_load.at(group)[node]);
      }
    }
  }
  return limits;
}

Partition::Costs LayerPlanner::costs(const Task& task) const {
  Partition::Costs costs = visit_costs(topology_, options_.flow, layer_.groups.size());
  if (task.running != nullptr) {
    costs.away = task.away;
    for (const std::vector<int>& ranks : *task.running) {
      costs.was.push_back(topology_.node(ranks[0]));
      std::vector<int>& had = costs.had.emplace_back();
      std::ranges::transform(ranks, std::back_inserter(had),
                             [&](int rank) { return topology_.node(rank); });
    }
  }
  return costs;
}

std::vector<Loads> LayerPlanner::node_loads(const Nodes& nodes) const {
  std::vector<Loads> loads(ranks_.ranks.size());
  for (std::size_t expert = 0; expert < nodes.size(); ++expert) {
    loads[as_index(nodes[expert])].add(static_cast<int>(expert) / layer_.experts,
                                       static_cast<double>(loads_[expert]));
  }
  return loads;
}

/// Of a step, with ranks of a node alike and cards too.
double LayerPlanner::seconds(const Task& task, const Nodes& nodes) const {
  const Partition::Costs costs = this->costs(task);
  const double copies = assignment_cost(layer_, costs, nodes) -
                        costs.meet * static_cast<double>(all_->choosing_both());
  std::array<double, 2> busiest{};
  const std::vector<Loads> loads = node_loads(nodes);
  for (std::size_t node = 0; node < loads.size(); ++node) {
    for (std::size_t group = 0; group < busiest.size(); ++group) {
      busiest.at(group) =
          std::max(busiest.at(group), loads[node].of_group.at(group) / ranks_.ranks[node]);
    }
  }
  return task.copy_s * copies + task.choice_s * (busiest[0] + busiest[1]);
}

/// Without limits for each group, and if it then takes longer that nodes wait while others work,
/// with them, too.
LayerPlanner::Nodes LayerPlanner::search(const Task& task, std::int64_t work) {
  LayerSearch::Task layer{.layer = layer_,
                          .topology = topology_,
                          .all = all_,
                          .costs = costs(task),
                          .limits = limits_,
                          .ranks = ranks_,
                          .seed = task.seed,
                          .work = work};
  LayerSearch together(layer);
  const Nodes& start = together.starts().front();
  const double waiting =
      task.choice_s * (worst_of_group(node_loads(start)) - 1) * total_.both() / topology_.ranks();
  if (groups_ == 1 || waiting < kGroupsMatter * seconds(task, start)) {
    return together.run(1);
  }
  Nodes mixed = together.run(0.5);
  layer.limits = group_limits_;
  layer.work = work / 2;
  Nodes even = LayerSearch(layer).run(1);
  if (seconds(task, even) <= (1 - kGroupsPay) * seconds(task, mixed)) {
    limits_ = group_limits_;
    return even;
  }
  return mixed;
}

/// Of replicas that could save anything.
bool LayerPlanner::has_room() const {
  return topology_.nodes() > 1 && topology_.nodes() <= kMostReplicaNodes && all_->choosing() > 0 &&
         std::reduce(limits_.slots.begin(), limits_.slots.end()) > all_->experts();
}

LayerPlanner::Slots LayerPlanner::one_each(const Nodes& nodes) const {
  Slots slots(limits_.slots.size());
  for (std::size_t expert = 0; expert < nodes.size(); ++expert) {
    const auto e = static_cast<int>(expert);
    slots[as_index(nodes[expert])].push_back({e, e / layer_.experts, loads_[expert]});
  }
  return slots;
}

LayerPlanner::Slots LayerPlanner::replicated(const Task& task, const Nodes& nodes,
                                             std::int64_t work) const {
  ReplicaPlan plan{.flow = options_.flow,
                   .least_saving = task.least_saving,
                   .search = {.work = share_of(work, 1 / kMovesPerLook), .seed = task.seed},
                   .away = task.away};
  if (task.running != nullptr) {
    for (const std::vector<int>& ranks : *task.running) {
      NodeSet set = 0;
      for (const int rank : ranks) {
        set |= node_bit(topology_.node(rank));
      }
      plan.running.push_back(set);
    }
  }
  return plan_replicas(layer_, topology_, replica_limits(), *all_, nodes, plan);
}

ExpertRanks LayerPlanner::to_ranks(const Slots& slots, const ExpertRanks* running) const {
  ExpertRanks ranks(loads_.size());
  std::vector<std::size_t> replicas(loads_.size());
  for (const std::vector<Slot>& node : slots) {
    for (const Slot& slot : node) {
      ++replicas[as_index(slot.expert)];
    }
  }
  for (std::size_t expert = 0; expert < ranks.size(); ++expert) {
    ranks[expert].reserve(replicas[expert]);
  }
  std::vector<int> was;
  for (std::size_t node = 0; node < slots.size(); ++node) {
    const auto on_node = topology_.ranks_of_node(static_cast<int>(node));
    was.clear();
    for (const Slot& slot : slots[node]) {
      if (running != nullptr) {
        const std::vector<int>& held = (*running)[as_index(slot.expert)];
        const auto here = std::ranges::find_first_of(on_node, held);
        was.push_back(here == on_node.end() ? -1 : static_cast<int>(here - on_node.begin()));
      }
    }
    const RankPacking packed =
        pack_ranks(slots[node], {.ranks = ranks_.ranks[node],
                                 .slots = ranks_.slots,
                                 .was = was,
                                 .enough = running != nullptr ? ranks_.load : 0,
                                 .limit = ranks_.load});
    for (std::size_t i = 0; i < slots[node].size(); ++i) {
      if (packed.rank_of[i] >= 0) {
        ranks[as_index(slots[node][i].expert)].push_back(on_node[as_index(packed.rank_of[i])]);
      }
    }
  }
  for (std::vector<int>& of_expert : ranks) {
    std::ranges::sort(of_expert);
  }
  return ranks;
}

}  // namespace cartesian
