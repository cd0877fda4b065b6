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
constexpr double kGroupsPay = 0.03;             // of a step's time
constexpr double kShareOfComparing = 1.0 / 24;  // of the work, to look at one plan
constexpr std::int64_t kWorkOfTwo = 500'000;    // that searches with two kinds of limits begin at
constexpr double kSampledPays = 0.01;
constexpr double kUnscoredPays = 0.03;

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

/// A plan and its predicted step, with pivot scores and without: scores tell where B's experts are,
/// but draw pivots that would be as good elsewhere to few nodes.
struct TimedPlan {
  ExpertRanks ranks = {};
  double scored_s = std::numeric_limits<double>::infinity();
  double unscored_s = std::numeric_limits<double>::infinity();
  double unscored_pays = kUnscoredPays;

  bool scored() const { return unscored_s >= (1 - unscored_pays) * scored_s; }
  double seconds() const { return scored() ? scored_s : unscored_s; }
};

struct Fastest {
  TimedPlan best = {};
  bool any = false;

  /// Whether it is taken: if it pays by so large a share, and the best without scores is no faster.
  bool consider(TimedPlan plan, double pays) {
    const double seconds = plan.seconds();
    if (any && seconds >= (1 - pays) * best.seconds()) {
      return false;
    }
    if (any && seconds >= (1 - pays) * best.unscored_s) {
      best.unscored_pays = 0;
      return false;
    }
    best = std::move(plan);
    any = true;
    return true;
  }
};

}  // namespace

LayerPlanner::LayerPlanner(const LayerTrace& layer, const Cluster& cluster,
                           const PlanOptions& options, int slots)
    : layer_(layer),
      cluster_(cluster),
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

LayerPlan LayerPlanner::plan(const Task& task) {
  all_ = std::make_shared<CoActivation>(layer_);
  set_limits();
  return options_.objective == Objective::copies || topology_.nodes() == 1 ? fewest_copies(task)
                                                                           : least_time(task);
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
  // Slots to spare, shared out between the groups, may leave one of them few on some nodes.
  std::vector<int> fewest;
  const int needed = (all_->experts() + topology_.ranks() - 1) / topology_.ranks();
  for (const int ranks : ranks_.ranks) {
    fewest.push_back(ranks * needed);
  }
  const double group =
      std::min(worst_of_group(node_loads(by_group)),
               worst_of_group(node_loads(balanced_assignment(loads_, groups_, fewest))));
  limits_ = limits_of(load, std::nullopt);
  group_limits_ = limits_of(load, aimed_load(options_, group));
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

/// Within the slots and the cap, or where the cap is not kept what is aimed at. Replicas are taken
/// to serve as much each.
bool LayerPlanner::allowed(const ExpertRanks& ranks) const {
  std::vector<int> size(as_index(topology_.ranks()));
  std::vector<double> load(size.size());
  std::vector<double> node_load(ranks_.ranks.size());
  for (std::size_t expert = 0; expert < ranks.size(); ++expert) {
    for (const int rank : ranks[expert]) {
      const double served =
          static_cast<double>(loads_[expert]) / static_cast<double>(ranks[expert].size());
      ++size[as_index(rank)];
      load[as_index(rank)] += served;
      node_load[as_index(topology_.node(rank))] += served;
    }
  }
  const double cap = options_.load_cap * (1 + kRounding) * total_.both() / topology_.ranks();
  for (std::size_t node = 0; node < node_load.size(); ++node) {
    if (node_load[node] > std::max(cap * ranks_.ranks[node], limits_.load[node])) {
      return false;
    }
  }
  return std::ranges::max(size) <= ranks_.slots &&
         std::ranges::max(load) <= std::max(cap, ranks_.load);
}

LayerSearch::Task LayerPlanner::search_task(const Task& task, const NodeLimits& limits,
                                            std::int64_t work) const {
  return {.layer = layer_,
          .topology = topology_,
          .all = all_,
          .costs = costs(task),
          .limits = limits,
          .ranks = ranks_,
          .seed = task.seed,
          .work = work};
}

LayerPlan LayerPlanner::fewest_copies(const Task& task) {
  const std::int64_t for_replicas = has_room() ? share_of(task.work, kShareOfReplicas) : 0;
  const Nodes nodes = LayerSearch(search_task(task, limits_, task.work - for_replicas)).run(1);
  return {.ranks = to_ranks(has_room() ? replicated(task, nodes, for_replicas) : one_each(nodes),
                            task.running)};
}

/// A's experts on some nodes and B's on others need the fewest copies, but then nodes and cards
/// wait for each other: so it is searched with limits of each group, too.
LayerPlan LayerPlanner::least_time(const Task& task) {
  const std::int64_t for_replicas = has_room() ? share_of(task.work, kShareOfReplicas) : 0;
  const std::int64_t work = task.work - for_replicas;
  const bool replicas =
      has_room() || std::reduce(limits_.slots.begin(), limits_.slots.end()) > all_->experts();
  const StepCosts step(layer_, cluster_,
                       {.flow = options_.flow,
                        .sizes = task.sizes,
                        .tokens = task.tokens,
                        .replicas = replicas,
                        .work = share_of(task.work, kShareOfComparing)});
  Fastest fastest;
  const auto timed = [&](ExpertRanks ranks, bool searched) {
    const double moving = seconds_to_move(task, ranks);
    TimedPlan plan{.ranks = std::move(ranks)};
    plan.unscored_s = moving + step.seconds(plan.ranks, false);
    plan.scored_s = searched ? moving + step.seconds(plan.ranks, true)
                             : std::numeric_limits<double>::infinity();
    return plan;
  };
  const auto consider = [&](ExpertRanks ranks, double pays) {
    return fastest.consider(timed(std::move(ranks), true), pays);
  };
  Nodes nodes;
  const bool both = groups_ == 2 && work >= kWorkOfTwo;
  if (both || groups_ == 1) {
    nodes = LayerSearch(search_task(task, limits_, both ? work / 2 : work)).run(1);
    consider(to_ranks(one_each(nodes), task.running), 0);
  }
  if (groups_ == 2) {
    Nodes even = LayerSearch(search_task(task, group_limits_, both ? work / 2 : work)).run(1);
    if (consider(to_ranks(one_each(even), task.running), kGroupsPay)) {
      nodes = std::move(even);
      limits_.group_load = group_limits_.group_load;
    }
  }
  if (has_room()) {
    consider(to_ranks(replicated(task, nodes, for_replicas), task.running), 0);
  }
  // Of a part of the trace's tokens little is not for certain.
  const double pays = step.whole() ? kRounding : kSampledPays;
  std::vector<ExpertRanks> others{linear_ranks(), balanced()};
  if (task.running != nullptr) {
    others.push_back(*task.running);
  }
  for (ExpertRanks& other : others) {
    if (allowed(other)) {
      fastest.consider(timed(std::move(other), false), pays);
    }
  }
  return {.ranks = std::move(fastest.best.ranks), .scored = fastest.best.scored()};
}

/// What bringing experts to other nodes takes, of every step until it must have paid back.
double LayerPlanner::seconds_to_move(const Task& task, const ExpertRanks& ranks) const {
  int moved = 0;
  for (std::size_t expert = 0; expert < ranks.size() && task.running != nullptr; ++expert) {
    for (const int rank : ranks[expert]) {
      const bool was = std::ranges::any_of((*task.running)[expert], [&](int held) {
        return topology_.node(held) == topology_.node(rank);
      });
      moved += was ? 0 : 1;
    }
  }
  return moved * task.away * task.copy_s;
}

ExpertRanks LayerPlanner::linear_ranks() const {
  const Placement linear = Placement::linear(
      {.layers = 1, .groups = groups_, .experts = layer_.experts, .ranks = topology_.ranks()},
      topology_.ranks());
  ExpertRanks ranks;
  for (int group = 0; group < groups_; ++group) {
    for (int expert = 0; expert < layer_.experts; ++expert) {
      const auto held = linear.replicas(0, group, expert);
      ranks.emplace_back(held.begin(), held.end());
    }
  }
  return ranks;
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
