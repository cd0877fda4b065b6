#include "planner/layer_limits.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "base/index.h"
#include "planner/starts.h"

namespace cartesian {

namespace {

constexpr double kAboveBalanced = 0.05;
constexpr double kRounding = 1e-9;

/// Within what is asked for, or if balancing does not reach it within a little more than it does
/// reach; by so much that loads of other text, which are not quite the same, are so, too.
double aimed_load(const PlanOptions& options, double balanced) {
  const double cap = options.load_cap;
  const auto free = [&](double above) { return std::min(options.load_margin, above / 3); };
  const double load = balanced <= cap ? std::max(balanced, cap - free(cap - 1))
                                      : balanced + kAboveBalanced - free(kAboveBalanced);
  return load * (1 + kRounding);
}

/// [nodes] the largest of the nodes whose ranks have the same shares: slow ranks that must serve
/// more than theirs are no reason why others should.
std::vector<double> largest_alike(const std::vector<double>& of_nodes, const RankLimits& ranks) {
  std::map<std::vector<double>, double> largest;
  const auto like = [&](std::size_t node) -> double& {
    const auto shares = ranks.shares_on(node);
    return largest.try_emplace({shares.begin(), shares.end()}, 0).first->second;
  };
  for (std::size_t node = 0; node < of_nodes.size(); ++node) {
    like(node) = std::max(like(node), of_nodes[node]);
  }
  std::vector<double> result;
  for (std::size_t node = 0; node < of_nodes.size(); ++node) {
    result.push_back(like(node));
  }
  return result;
}

/// Of two lists the one whose largest is less.
std::vector<double> less_of(std::vector<double> a, std::vector<double> b) {
  return std::ranges::max(a) <= std::ranges::max(b) ? std::move(a) : std::move(b);
}

}  // namespace

LayerLimits::LayerLimits(const LayerTrace& layer, const Topology& topology,
                         const PlanOptions& options, const CoActivation& all, int slots,
                         std::span<const double> shares)
    : layer_(layer),
      topology_(topology),
      options_(options),
      groups_(static_cast<int>(layer.groups.size())),
      loads_(expert_loads(layer)),
      ranks_(rank_limits(topology, slots, shares)) {
  for (std::size_t expert = 0; expert < loads_.size(); ++expert) {
    total_.add(static_cast<int>(expert) / layer_.experts, static_cast<double>(loads_[expert]));
  }
  together_.slots = slots_of_nodes(ranks_);
  together_.shares = shares_of_nodes(ranks_);
  const std::vector<double>& of_nodes = together_.shares;
  const Nodes by_group = balanced_assignment(loads_, groups_, together_.slots, of_nodes);
  const Nodes together = balanced_start(loads_, together_);
  ranks_.loads = aimed_rank_loads(all, by_group, together);
  for (double& load : ranks_.loads) {
    load = load * total_.both() / topology_.ranks();
  }
  const Worst load =
      aimed_loads(less_of(worst_nodes(node_loads(by_group)), worst_nodes(node_loads(together))));
  // Slots to spare, shared out between the groups, may leave one of them few on some nodes.
  const int needed = (all.experts() + topology_.ranks() - 1) / topology_.ranks();
  const std::vector<int> fewest = slots_of_nodes(rank_limits(topology, needed, shares));
  const Worst group =
      less_of(worst_of_group(node_loads(by_group)),
              worst_of_group(node_loads(balanced_assignment(loads_, groups_, fewest, of_nodes))));
  together_ = limits_of(load, std::nullopt);
  by_group_ = limits_of(load, aimed_loads(group));
}

/// Of a rank: on nodes with ranks of the same shares, as balancing reaches there.
LayerLimits::Worst LayerLimits::aimed_rank_loads(const CoActivation& all, const Nodes& by_group,
                                                 const Nodes& together) const {
  const auto worst_ranks = [&](const Nodes& nodes) {
    std::vector<double> most = most_loaded_ranks(all, nodes, ranks_);
    for (double& load : most) {
      load = total_.both() > 0 ? load * topology_.ranks() / total_.both() : 1;
    }
    return largest_alike(most, ranks_);
  };
  return aimed_loads(less_of(worst_ranks(by_group), worst_ranks(together)));
}

/// `share`: in ranks.
double LayerLimits::over_mean(double load, double total, double share) const {
  return total > 0 ? load * topology_.ranks() / share / total : 0;
}

/// By both groups.
LayerLimits::Worst LayerLimits::worst_nodes(const std::vector<Loads>& loads) const {
  return worst_of(loads, [&](const Loads& node, double share) {
    return over_mean(node.both(), total_.both(), share);
  });
}

/// By A or B alone.
LayerLimits::Worst LayerLimits::worst_of_group(const std::vector<Loads>& loads) const {
  return worst_of(loads, [&](const Loads& node, double share) {
    double worst = 0;
    for (std::size_t group = 0; group < as_index(groups_); ++group) {
      worst = std::max(worst, over_mean(node.of_group.at(group), total_.of_group.at(group), share));
    }
    return worst;
  });
}

template <class LoadOf>
LayerLimits::Worst LayerLimits::worst_of(const std::vector<Loads>& loads,
                                         const LoadOf& load_of) const {
  Worst worst;
  for (std::size_t node = 0; node < loads.size(); ++node) {
    worst.push_back(std::max(1.0, load_of(loads[node], ranks_.share_of(node))));
  }
  return largest_alike(worst, ranks_);
}

LayerLimits::Worst LayerLimits::aimed_loads(const Worst& balanced) const {
  Worst loads;
  std::ranges::transform(balanced, std::back_inserter(loads),
                         [&](double load) { return aimed_load(options_, load); });
  return loads;
}

NodeLimits LayerLimits::limits_of(const Worst& load, const std::optional<Worst>& group) const {
  NodeLimits limits;
  limits.shares = shares_of_nodes(ranks_);
  for (std::size_t node = 0; node < load.size(); ++node) {
    const double share = ranks_.share_of(node) / topology_.ranks();
    limits.slots.push_back(ranks_.ranks[node] * ranks_.slots);
    limits.load.push_back(load[node] * total_.both() * share);
    for (std::size_t g = 0; group && g < as_index(groups_); ++g) {
      limits.group_load.at(g).push_back((*group)[node] * total_.of_group.at(g) * share);
    }
  }
  return limits;
}

NodeLimits LayerLimits::with_replicas(bool by_group) const {
  const NodeLimits& once = by_group ? by_group_ : together_;
  std::vector<Loads> loads(ranks_.ranks.size());
  const NodeSlots slots =
      balance_nodes(loads_, groups_, once.slots, topology_.nodes(), once.shares);
  for (std::size_t node = 0; node < slots.size(); ++node) {
    for (const Slot& slot : slots[node]) {
      loads[node].add(slot.group, static_cast<double>(slot.load));
    }
  }
  NodeLimits limits =
      limits_of(aimed_loads(worst_nodes(loads)),
                by_group ? std::optional(aimed_loads(worst_of_group(loads))) : std::nullopt);
  for (std::size_t node = 0; node < limits.load.size(); ++node) {
    limits.load[node] = std::min(limits.load[node], once.load[node]);
    for (std::size_t group = 0; by_group && group < as_index(groups_); ++group) {
      double& load = limits.group_load.at(group)[node];
      load = std::min(load, once.group_load.at(group)[node]);
    }
  }
  return limits;
}

std::vector<Loads> LayerLimits::node_loads(const Nodes& nodes) const {
  std::vector<Loads> loads(ranks_.ranks.size());
  for (std::size_t expert = 0; expert < nodes.size(); ++expert) {
    loads[as_index(nodes[expert])].add(static_cast<int>(expert) / layer_.experts,
                                       static_cast<double>(loads_[expert]));
  }
  return loads;
}

bool LayerLimits::allow(const ExpertRanks& ranks) const {
  std::vector<int> size(as_index(topology_.ranks()));
  std::vector<double> load(size.size());  // over what a rank's share is above 1
  std::vector<double> share_of_rank(size.size(), 1);
  for (std::size_t node = 0; node < ranks_.shares.size(); ++node) {
    const auto on_node = topology_.ranks_of_node(static_cast<int>(node));
    for (std::size_t i = 0; i < on_node.size(); ++i) {
      share_of_rank[as_index(on_node[i])] = std::max(1.0, ranks_.shares[node][i]);
    }
  }
  std::vector<double> node_load(ranks_.ranks.size());
  for (std::size_t expert = 0; expert < ranks.size(); ++expert) {
    for (const int rank : ranks[expert]) {
      const double served =
          static_cast<double>(loads_[expert]) / static_cast<double>(ranks[expert].size());
      ++size[as_index(rank)];
      load[as_index(rank)] += served / share_of_rank[as_index(rank)];
      node_load[as_index(topology_.node(rank))] += served;
    }
  }
  const double cap = options_.load_cap * (1 + kRounding) * total_.both() / topology_.ranks();
  for (std::size_t node = 0; node < node_load.size(); ++node) {
    const double share = std::max<double>(ranks_.ranks[node], ranks_.share_of(node));
    if (node_load[node] > std::max(cap * share, together_.load[node])) {
      return false;
    }
  }
  for (std::size_t rank = 0; rank < load.size(); ++rank) {
    const auto node = as_index(topology_.node(static_cast<int>(rank)));
    if (size[rank] > ranks_.slots || load[rank] > std::max(cap, ranks_.load_on(node))) {
      return false;
    }
  }
  return true;
}

}  // namespace cartesian
