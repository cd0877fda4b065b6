#include "planner/layer_planner.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/index.h"
#include "planner/graph_search.h"
#include "planner/label_alignment.h"
#include "planner/rank_packing.h"
#include "planner/rank_repair.h"
#include "planner/replica_search.h"
#include "planner/starts.h"
#include "planner/token_sample.h"

namespace cartesian {

namespace {

constexpr double kShareOfReplicas = 0.6;  // of the work, if there is room for any
constexpr double kShareOfPairs = 0.15;
constexpr double kShareOfStarts = 0.25;  // of the rest, to find which start is best
constexpr std::size_t kMostStarts = 3;   // that are searched from
constexpr double kWorkToBegin = 16;      // for each token of a sample
constexpr std::int64_t kFewestSampled = 512;
constexpr double kMovesPerLook = 6;  // how much longer a look of ReplicaCosts takes
constexpr double kAboveBalanced = 0.05;
constexpr int kRankPackings = 200;

std::int64_t share_of(std::int64_t work, double share) {
  return static_cast<std::int64_t>(share * static_cast<double>(work));
}

std::int64_t choices_of(const LayerTrace& layer) {
  std::int64_t choices = 0;
  for (const LayerTrace::Group& group : layer.groups) {
    choices += group.choices;
  }
  return choices;
}

}  // namespace

LayerPlanner::LayerPlanner(const LayerTrace& layer, const Cluster& cluster,
                           const PlanOptions& options, int slots)
    : layer_(layer),
      topology_(cluster.topology),
      options_(options),
      slots_(slots),
      loads_(expert_loads(layer)) {
  const auto total = static_cast<double>(std::reduce(loads_.begin(), loads_.end()));
  for (int node = 0; node < topology_.nodes(); ++node) {
    node_ranks_.push_back(static_cast<int>(topology_.ranks_of_node(node).size()));
    limits_.slots.push_back(node_ranks_.back() * slots_);
    mean_.push_back(total * node_ranks_.back() / topology_.ranks());
    limits_.load.push_back(options_.load_cap * mean_.back());
  }
  rank_limit_ = options_.load_cap * total / topology_.ranks();
}

ExpertRanks LayerPlanner::balanced() const {
  const std::vector<int> replicas = replica_counts(
      loads_, std::reduce(limits_.slots.begin(), limits_.slots.end()), topology_.ranks());
  return to_ranks(balance_nodes(loads_, replicas, limits_.slots), nullptr);
}

ExpertRanks LayerPlanner::plan(const Task& task) {
  all_ = std::make_shared<CoActivation>(layer_);
  raise_limits(balanced_start(loads_, limits_));
  const std::int64_t for_replicas = has_room() ? share_of(task.work, kShareOfReplicas) : 0;
  const Nodes nodes = search(task, task.work - for_replicas);
  return to_ranks(has_room() ? replicated(task, nodes, for_replicas) : one_each(nodes),
                  task.running);
}

/// Where the slots cannot keep the cap.
void LayerPlanner::raise_limits(const Nodes& even) {
  const Slots slots = one_each(even);
  for (std::size_t node = 0; node < slots.size(); ++node) {
    double load = 0;
    for (const Slot& slot : slots[node]) {
      load += static_cast<double>(slot.load);
    }
    limits_.load[node] = std::max(limits_.load[node], load + kAboveBalanced * mean_[node]);
    const RankPacking packed =
        pack_ranks(slots[node],
                   {.ranks = node_ranks_[node], .slots = slots_, .was = {}, .enough = rank_limit_});
    rank_limit_ = std::max(rank_limit_, static_cast<double>(packed.most_load) +
                                            kAboveBalanced * mean_[node] / node_ranks_[node]);
  }
}

Partition::Costs LayerPlanner::costs(const Task& task) const {
  Partition::Costs costs = visit_costs(topology_, options_.flow, layer_.groups.size());
  if (task.running != nullptr) {
    costs.away = task.away;
    for (const std::vector<int>& ranks : *task.running) {
      costs.was.push_back(topology_.node(ranks[0]));
    }
  }
  return costs;
}

/// Ordered by cost in `tokens`.
std::vector<LayerPlanner::Nodes> LayerPlanner::starts(const Task& task, const LayerTrace& tokens,
                                                      std::int64_t work) const {
  const Partition::Costs costs = this->costs(task);
  const std::vector<Nodes> plain{cluster_start(*all_, costs, limits_),
                                 balanced_start(loads_, limits_), linear_start(layer_, topology_)};
  std::vector<Nodes> starts = plain;
  // A pair of one group on one node saves a visit; a pair of both groups saves a meeting, but only
  // one of all the pairs of a token does.
  const double visit = *std::ranges::max_element(costs.visit);
  const double choices = std::max(1.0, all_->choices());
  for (std::size_t i = 0; i < plain.size() && (i == 0 || work > 0); ++i) {
    for (const double cross : {costs.meet / choices, costs.meet / choices / choices}) {
      std::int64_t share = work / 2;
      work -= share;
      starts.push_back(improve_pairs(*all_, {.same = visit, .cross = cross}, limits_, plain[i],
                                     task.seed, share));
      work += share;
    }
  }
  if (!costs.was.empty()) {
    for (Nodes& start : starts) {
      start = align_labels(start, costs.was, node_ranks_);
    }
    starts.push_back(costs.was);
  }
  std::ranges::stable_sort(starts, std::less<>(), [&](const Nodes& start) {
    return assignment_cost(tokens, costs, start);
  });
  return starts;
}

bool LayerPlanner::within_limits(const Nodes& nodes) const {
  std::vector<int> size(limits_.slots.size());
  std::vector<double> load(limits_.slots.size());
  for (std::size_t expert = 0; expert < nodes.size(); ++expert) {
    ++size[as_index(nodes[expert])];
    load[as_index(nodes[expert])] += static_cast<double>(loads_[expert]);
  }
  for (std::size_t node = 0; node < size.size(); ++node) {
    if (size[node] > limits_.slots[node] || load[node] > limits_.load[node]) {
      return false;
    }
  }
  const Slots slots = one_each(nodes);
  for (std::size_t node = 0; node < slots.size(); ++node) {
    const RankPacking packed =
        pack_ranks(slots[node],
                   {.ranks = node_ranks_[node], .slots = slots_, .was = {}, .enough = rank_limit_});
    if (static_cast<double>(packed.most_load) > rank_limit_) {
      return false;
    }
  }
  return true;
}

/// False if some node is over its slots, or over its load whatever is done.
bool LayerPlanner::repaired(Partition& partition) const {
  for (int node = 0; node < partition.nodes(); ++node) {
    if (partition.node_size(node) > limits_.slots[as_index(node)]) {
      return false;
    }
  }
  return repair(partition, limits_);
}

LayerPlanner::Nodes LayerPlanner::search(const Task& task, std::int64_t work) const {
  const std::int64_t choices = std::max<std::int64_t>(1, choices_of(layer_));
  const double begin =
      kWorkToBegin * static_cast<double>(std::max<std::int64_t>(1, choices * choices / 16));
  const auto sample = static_cast<std::int64_t>(static_cast<double>(work) / 2 / begin);
  const TokenSample tokens(layer_, std::max(kFewestSampled, sample));
  const std::int64_t for_pairs = share_of(work, kShareOfPairs);
  const std::vector<Nodes> begun = starts(task, tokens.layer(), for_pairs);
  const std::int64_t for_starts = share_of(work - for_pairs, kShareOfStarts);
  Partition partition(tokens.layer(), costs(task), all_);
  std::vector<Nodes> candidates{linear_start(layer_, topology_)};
  if (task.running != nullptr) {
    candidates.push_back(partition.costs().was);
  }
  Nodes best;
  double least = std::numeric_limits<double>::infinity();
  std::size_t tried = 0;
  for (std::size_t i = 0; i < begun.size() && tried < kMostStarts; ++i) {
    partition.assign(begun[i]);
    if (!repaired(partition)) {
      continue;
    }
    ++tried;
    candidates.push_back(partition.assignment());
    improve(partition, limits_,
            {.seed = task.seed, .work = for_starts / static_cast<std::int64_t>(kMostStarts)});
    if (partition.cost() < least) {
      least = partition.cost();
      best = partition.assignment();
    }
  }
  partition.assign(best);
  improve(partition, limits_, {.seed = task.seed + 1, .work = work - for_pairs - for_starts});
  repair_ranks(partition, limits_, {.ranks = node_ranks_, .slots = slots_, .load = rank_limit_},
               kRankPackings);
  candidates.push_back(partition.assignment());
  return best_of(task, candidates);
}

/// In the whole trace: the search has seen a part of it.
LayerPlanner::Nodes LayerPlanner::best_of(const Task& task,
                                          const std::vector<Nodes>& candidates) const {
  const Partition::Costs costs = this->costs(task);
  const Nodes* best = &candidates.back();
  double least = assignment_cost(layer_, costs, *best);
  for (const Nodes& candidate : candidates) {
    if (within_limits(candidate)) {
      const double cost = assignment_cost(layer_, costs, candidate);
      if (cost < least) {
        least = cost;
        best = &candidate;
      }
    }
  }
  return *best;
}

bool LayerPlanner::has_room() const {
  return topology_.nodes() <= kMostReplicaNodes &&
         std::reduce(limits_.slots.begin(), limits_.slots.end()) > all_->experts();
}

LayerPlanner::Slots LayerPlanner::one_each(const Nodes& nodes) const {
  Slots slots(limits_.slots.size());
  for (std::size_t expert = 0; expert < nodes.size(); ++expert) {
    slots[as_index(nodes[expert])].push_back({static_cast<int>(expert), loads_[expert]});
  }
  return slots;
}

LayerPlanner::Slots LayerPlanner::replicated(const Task& task, const Nodes& nodes,
                                             std::int64_t work) const {
  ReplicaPlan plan{.flow = options_.flow,
                   .least_saving = task.least_saving,
                   .search = {.work = share_of(work, 1 / kMovesPerLook), .seed = task.seed},
                   .running = {},
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
  return plan_replicas(layer_, topology_, limits_, *all_, nodes, plan);
}

ExpertRanks LayerPlanner::to_ranks(const Slots& slots, const ExpertRanks* running) const {
  ExpertRanks ranks(loads_.size());
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
        pack_ranks(slots[node], {.ranks = node_ranks_[node],
                                 .slots = slots_,
                                 .was = was,
                                 .enough = running != nullptr ? rank_limit_ : 0});
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
