#include "planner/layer_planner.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "base/index.h"
#include "planner/replica_plan.h"

namespace cartesian {

namespace {

constexpr double kShareOfReplicas = 0.8;  // of the work, if there is room for any
constexpr double kMovesPerLook = 2;       // how much longer a look of ReplicaCosts takes
constexpr double kRounding = 1e-9;
constexpr double kGroupsPay = 0.03;             // of a step's time
constexpr double kShareOfComparing = 1.0 / 24;  // of the work, to look at one plan
constexpr double kShareOfTime = 0.15;           // of the work, for plans where few copies are slow
constexpr std::int64_t kWorkOfTwo = 500'000;    // that searches with two kinds of limits begin at
constexpr double kSampledPays = 0.01;

std::int64_t share_of(std::int64_t work, double share) {
  return static_cast<std::int64_t>(share * static_cast<double>(work));
}

bool has_replicas(const ExpertRanks& ranks) {
  return std::ranges::any_of(ranks, [](const auto& held) { return held.size() > 1; });
}

int groups_of(const LayerTrace& layer) { return static_cast<int>(layer.groups.size()); }

}  // namespace

ExpertRanks balance_layer(const LayerTrace& layer, const Topology& topology, int slots,
                          std::span<const double> shares) {
  const std::vector<std::int64_t> loads = expert_loads(layer);
  const RankLimits ranks = rank_limits(topology, slots, shares);
  return pack_layer(balance_nodes(loads, groups_of(layer), slots_of_nodes(ranks), topology.ranks(),
                                  shares_of_nodes(ranks)),
                    topology, ranks, loads.size(), nullptr);
}

LayerPlanner::LayerPlanner(const LayerTrace& layer, const Cluster& cluster,
                           const PlanOptions& options, int slots, const Task& task)
    : layer_(layer),
      cluster_(cluster),
      topology_(cluster.topology),
      options_(options),
      task_(task),
      all_(std::make_shared<CoActivation>(layer)),
      shares_(load_shares(cluster)),
      limits_(layer, cluster.topology, options, *all_, slots, shares_) {
  if (options.objective != Objective::copies && topology_.nodes() > 1) {
    step_.emplace(layer_, cluster_,
                  StepCosts::Options{.flow = options_.flow,
                                     .sizes = task_.sizes,
                                     .tokens = task_.tokens,
                                     .replicas = has_slots_left(),
                                     .work = share_of(task_.work, kShareOfComparing)});
  }
}

LayerPlan LayerPlanner::plan() const {
  if (!step_) {
    return fewest_copies(task_.work);
  }
  return options_.objective == Objective::step_time ? least_time(task_.work)
                                                    : fewest_copies_in_time();
}

LayerPlan LayerPlanner::fewest_copies(std::int64_t work) const {
  const std::int64_t for_replicas = work_for_replicas(work);
  const Nodes nodes = search(limits_.together(), work - for_replicas);
  return {.ranks = pack(has_room() ? replicated(nodes, false, for_replicas) : one_each(nodes))};
}

/// Cards and nodes may wait for each other so much that what needs the fewest copies is slower
/// than what nobody has searched for: with one replica of each expert, that tells early.
LayerPlan LayerPlanner::fewest_copies_in_time() const {
  std::vector<TimedPlan> others;
  std::ranges::transform(unsearched(), std::back_inserter(others),
                         [&](const ExpertRanks& ranks) { return timed(ranks, false); });
  const auto enough = [&](bool replicas) {
    double least = std::numeric_limits<double>::infinity();
    for (const TimedPlan& other : others) {
      if (replicas || !has_replicas(other.ranks)) {
        least = std::min(least, other.unscored_s / (1 - share_that_pays()));
      }
    }
    return least;
  };
  const std::int64_t for_time = share_of(task_.work, kShareOfTime);
  const std::int64_t for_replicas = work_for_replicas(task_.work - for_time);
  const Nodes nodes = search(limits_.together(), task_.work - for_time - for_replicas);
  TimedPlan plan = timed(pack(one_each(nodes)), true);
  if (plan.least() > enough(false)) {
    return least_time(for_time + for_replicas);
  }
  if (has_room()) {
    plan = timed(pack(replicated(nodes, false, for_replicas)), true);
  }
  if (plan.least() > enough(true)) {
    return least_time(for_time);
  }
  return {.ranks = std::move(plan.ranks), .scored = plan.scored_s <= enough(true)};
}

/// A's experts on some nodes and B's on others need the fewest copies, but then nodes and cards
/// wait for each other: so it is searched with limits of each group, too.
LayerPlan LayerPlanner::least_time(std::int64_t work) const {
  const std::int64_t for_replicas = work_for_replicas(work);
  work -= for_replicas;
  FastestPlan fastest;
  const auto consider = [&](const NodeSlots& slots, double pays) {
    return fastest.consider(timed(pack(slots), true), pays);
  };
  Nodes nodes;
  bool by_group = false;
  const bool both = groups_of(layer_) == 2 && work >= kWorkOfTwo;
  if (both || groups_of(layer_) == 1) {
    nodes = search(limits_.together(), both ? work / 2 : work);
    consider(one_each(nodes), 0);
  }
  if (groups_of(layer_) == 2) {
    Nodes even = search(limits_.by_group(), both ? work / 2 : work);
    if (consider(one_each(even), kGroupsPay)) {
      nodes = std::move(even);
      by_group = true;
    }
  }
  if (has_room()) {
    consider(replicated(nodes, by_group, for_replicas), 0);
  }
  for (ExpertRanks& other : unsearched()) {
    fastest.consider(timed(std::move(other), false), share_that_pays());
  }
  return std::move(fastest).take();
}

LayerPlanner::Nodes LayerPlanner::search(const NodeLimits& limits, std::int64_t work) const {
  return LayerSearch({.layer = layer_,
                      .topology = topology_,
                      .all = all_,
                      .costs = costs(),
                      .limits = limits,
                      .ranks = limits_.ranks(),
                      .seed = task_.seed,
                      .work = work})
      .run(1);
}

Partition::Costs LayerPlanner::costs() const {
  Partition::Costs costs = visit_costs(topology_, options_.flow, layer_.groups.size());
  if (task_.running != nullptr) {
    costs.away = task_.away;
    for (const std::vector<int>& ranks : *task_.running) {
      costs.was.push_back(topology_.node(ranks[0]));
      std::vector<int>& had = costs.had.emplace_back();
      std::ranges::transform(ranks, std::back_inserter(had),
                             [&](int rank) { return topology_.node(rank); });
    }
  }
  return costs;
}

TimedPlan LayerPlanner::timed(ExpertRanks ranks, bool scored) const {
  const double moving = seconds_to_move(ranks);
  TimedPlan plan{.ranks = std::move(ranks)};
  plan.unscored_s = moving + step_->seconds(plan.ranks, false);
  if (scored) {
    plan.scored_s = moving + step_->seconds(plan.ranks, true);
  }
  return plan;
}

/// What bringing experts to other nodes takes, of every step until it must have paid back.
double LayerPlanner::seconds_to_move(const ExpertRanks& ranks) const {
  int moved = 0;
  for (std::size_t expert = 0; expert < ranks.size() && task_.running != nullptr; ++expert) {
    for (const int rank : ranks[expert]) {
      const bool was = std::ranges::any_of((*task_.running)[expert], [&](int held) {
        return topology_.node(held) == topology_.node(rank);
      });
      moved += was ? 0 : 1;
    }
  }
  return moved * task_.away * task_.copy_s;
}

/// Of a part of the trace's tokens little is not for certain.
double LayerPlanner::share_that_pays() const { return step_->whole() ? kRounding : kSampledPays; }

/// The linear, the balanced and the running placement, as far as they are allowed.
std::vector<ExpertRanks> LayerPlanner::unsearched() const {
  std::vector<ExpertRanks> plans{linear_ranks(),
                                 balance_layer(layer_, topology_, limits_.ranks().slots, shares_)};
  if (task_.running != nullptr) {
    plans.push_back(*task_.running);
  }
  std::erase_if(plans, [&](const ExpertRanks& ranks) { return !limits_.allow(ranks); });
  return plans;
}

ExpertRanks LayerPlanner::linear_ranks() const {
  const int groups = groups_of(layer_);
  const Placement linear = Placement::linear(
      {.layers = 1, .groups = groups, .experts = layer_.experts, .ranks = topology_.ranks()},
      topology_.ranks());
  ExpertRanks ranks;
  for (int group = 0; group < groups; ++group) {
    for (int expert = 0; expert < layer_.experts; ++expert) {
      const auto held = linear.replicas(0, group, expert);
      ranks.emplace_back(held.begin(), held.end());
    }
  }
  return ranks;
}

bool LayerPlanner::has_slots_left() const {
  return topology_.ranks() * limits_.ranks().slots > all_->experts();
}

/// For replicas that could save anything.
bool LayerPlanner::has_room() const {
  return topology_.nodes() > 1 && topology_.nodes() <= kMostReplicaNodes && all_->choosing() > 0 &&
         has_slots_left();
}

std::int64_t LayerPlanner::work_for_replicas(std::int64_t work) const {
  return has_room() ? share_of(work, kShareOfReplicas) : 0;
}

NodeSlots LayerPlanner::one_each(const Nodes& nodes) const {
  NodeSlots slots(as_index(topology_.nodes()));
  for (std::size_t expert = 0; expert < nodes.size(); ++expert) {
    const auto e = static_cast<int>(expert);
    slots[as_index(nodes[expert])].push_back({e, e / layer_.experts, all_->loads()[expert]});
  }
  return slots;
}

NodeSlots LayerPlanner::replicated(const Nodes& nodes, bool by_group, std::int64_t work) const {
  ReplicaPlan plan{.flow = options_.flow,
                   .least_saving = task_.least_saving,
                   .search = {.work = share_of(work, 1 / kMovesPerLook), .seed = task_.seed},
                   .away = task_.away};
  if (task_.running != nullptr) {
    for (const std::vector<int>& ranks : *task_.running) {
      NodeSet set = 0;
      for (const int rank : ranks) {
        set |= node_bit(topology_.node(rank));
      }
      plan.running.push_back(set);
    }
  }
  return plan_replicas(layer_, topology_, limits_.with_replicas(by_group), *all_, nodes, plan)
      .slots;
}

ExpertRanks LayerPlanner::pack(const NodeSlots& slots) const {
  return pack_layer(slots, topology_, limits_.ranks(), as_index(all_->experts()), task_.running);
}

}  // namespace cartesian
