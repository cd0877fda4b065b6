#include "planner/layer_limits.h"

#include <algorithm>

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

}  // namespace

LayerLimits::LayerLimits(const LayerTrace& layer, const Topology& topology,
                         const PlanOptions& options, const CoActivation& all, int slots)
    : layer_(layer),
      topology_(topology),
      options_(options),
      groups_(static_cast<int>(layer.groups.size())),
      loads_(expert_loads(layer)),
      ranks_(rank_limits(topology, slots)) {
  for (std::size_t expert = 0; expert < loads_.size(); ++expert) {
    total_.add(static_cast<int>(expert) / layer_.experts, static_cast<double>(loads_[expert]));
  }
  together_.slots = slots_of_nodes(ranks_);
  const Nodes by_group = balanced_assignment(loads_, groups_, together_.slots);
  const Nodes together = balanced_start(loads_, together_);
  ranks_.load = aimed_rank_load(all, by_group, together) * total_.both() / topology_.ranks();
  const double load = aimed_load(
      options_, std::min(worst_node(node_loads(by_group)), worst_node(node_loads(together))));
  // Slots to spare, shared out between the groups, may leave one of them few on some nodes.
  const int needed = (all.experts() + topology_.ranks() - 1) / topology_.ranks();
  const std::vector<int> fewest = slots_of_nodes(rank_limits(topology, needed));
  const double group =
      std::min(worst_of_group(node_loads(by_group)),
               worst_of_group(node_loads(balanced_assignment(loads_, groups_, fewest))));
  together_ = limits_of(load, std::nullopt);
  by_group_ = limits_of(load, aimed_load(options_, group));
}

/// Over the mean.
double LayerLimits::aimed_rank_load(const CoActivation& all, const Nodes& by_group,
                                    const Nodes& together) const {
  const auto worst_rank = [&](const Nodes& nodes) {
    const auto most = most_loaded_ranks(all, nodes, ranks_);
    return total_.both() > 0 ? static_cast<double>(*std::ranges::max_element(most)) *
                                   topology_.ranks() / total_.both()
                             : 1;
  };
  return aimed_load(options_, std::min(worst_rank(by_group), worst_rank(together)));
}

/// The most loaded node over the mean, by both groups.
double LayerLimits::worst_node(const std::vector<Loads>& loads) const {
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
double LayerLimits::worst_of_group(const std::vector<Loads>& loads) const {
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
NodeLimits LayerLimits::limits_of(double load, std::optional<double> group) const {
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

NodeLimits LayerLimits::with_replicas(bool by_group) const {
  const NodeLimits& once = by_group ? by_group_ : together_;
  std::vector<Loads> loads(ranks_.ranks.size());
  const NodeSlots slots = balance_nodes(loads_, groups_, once.slots, topology_.nodes());
  for (std::size_t node = 0; node < slots.size(); ++node) {
    for (const Slot& slot : slots[node]) {
      loads[node].add(slot.group, static_cast<double>(slot.load));
    }
  }
  NodeLimits limits = limits_of(
      aimed_load(options_, worst_node(loads)),
      by_group ? std::optional(aimed_load(options_, worst_of_group(loads))) : std::nullopt);
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
    if (node_load[node] > std::max(cap * ranks_.ranks[node], together_.load[node])) {
      return false;
    }
  }
  return std::ranges::max(size) <= ranks_.slots &&
         std::ranges::max(load) <= std::max(cap, ranks_.load);
}

}  // namespace cartesian
