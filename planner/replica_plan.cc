#include "planner/replica_plan.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

#include "base/index.h"
#include "planner/graph_search.h"
#include "planner/starts.h"

namespace cartesian {

namespace {

constexpr std::int64_t kFewestSampled = 64;
constexpr std::int64_t kMostSampled = 4096;
constexpr double kShareOfFirstLook = 1.0 / 3;  // of the work
constexpr std::int64_t kFewestCompared = 4096;
constexpr std::int64_t kShareToCompare = 8;  // of the work, that comparing a result is at most
constexpr std::int64_t kShareOfFirst = 4;    // of the work, that one of each other start is
constexpr double kTight = 0.03;

std::vector<NodeSet> one_each(const std::vector<int>& nodes) {
  std::vector<NodeSet> sets;
  for (const int node : nodes) {
    sets.push_back(node_bit(node));
  }
  return sets;
}

/// All experts in every group of `size` neighbouring nodes; nothing if they do not fit.
std::optional<std::vector<NodeSet>> cloned(const NodeLimits& limits, const CoActivation& all,
                                           std::size_t size, std::uint64_t seed) {
  const std::size_t nodes = limits.slots.size();
  std::vector<NodeSet> sets(as_index(all.experts()));
  for (std::size_t first = 0; first < nodes; first += size) {
    const std::size_t last = first + 2 * size > nodes ? nodes : first + size;
    NodeLimits group;
    group.slots.assign(limits.slots.begin() + static_cast<std::ptrdiff_t>(first),
                       limits.slots.begin() + static_cast<std::ptrdiff_t>(last));
    if (std::reduce(group.slots.begin(), group.slots.end()) < all.experts()) {
      return std::nullopt;
    }
    // The group serves its own tokens only: its share of the load that it may have of all.
    const auto share_of = [&](std::size_t from, std::size_t to) {
      const std::vector<double>& shares = limits.shares;
      return shares.empty() ? static_cast<double>(to - from)
                            : std::reduce(shares.begin() + static_cast<std::ptrdiff_t>(from),
                                          shares.begin() + static_cast<std::ptrdiff_t>(to));
    };
    for (std::size_t node = first; node < last; ++node) {
      if (!limits.shares.empty()) {
        group.shares.push_back(limits.shares[node]);
      }
      group.load.push_back(limits.load[node] * share_of(0, nodes) / share_of(first, last));
    }
    std::int64_t one_descent = 0;
    const std::vector<int> within =
        improve_pairs(all, {.same = 2, .cross = 1 / std::max(1.0, all.choices())}, group,
                      balanced_start(all.loads(), group), seed, one_descent);
    for (std::size_t expert = 0; expert < sets.size(); ++expert) {
      sets[expert] |= node_bit(static_cast<int>(first) + within[expert]);
    }
    first = last - size;
  }
  return sets;
}

/// By load alone, with replicas in all slots.
std::vector<NodeSet> balanced(const NodeLimits& limits, const CoActivation& all) {
  std::vector<NodeSet> sets(as_index(all.experts()));
  const auto on_node = balance_nodes(all.loads(), all.groups(), limits.slots,
                                     static_cast<int>(limits.slots.size()), limits.shares);
  for (std::size_t node = 0; node < on_node.size(); ++node) {
    for (const Slot& slot : on_node[node]) {
      sets[as_index(slot.expert)] |= node_bit(static_cast<int>(node));
    }
  }
  return sets;
}

/// Few replicas can be added, then, to what was planned without.
bool is_tight(const NodeLimits& limits, const CoActivation& all) {
  const auto total = static_cast<double>(std::reduce(all.loads().begin(), all.loads().end()));
  return std::reduce(limits.load.begin(), limits.load.end()) < (1 + kTight) * total;
}

/// Whether there are slots for all of them: there may have been more.
bool fit(const std::vector<NodeSet>& sets, const NodeLimits& limits) {
  for (std::size_t node = 0; node < limits.slots.size(); ++node) {
    const auto held = std::ranges::count_if(
        sets, [&](NodeSet set) { return (set & node_bit(static_cast<int>(node))) != 0; });
    if (held > limits.slots[node]) {
      return false;
    }
  }
  return true;
}

/// The best of what searches have found, which have seen a part of the trace and made the most of
/// it: compared in all of it, or in as much as there is time for.
class Best {
 public:
  Best(const LayerTrace& layer, const Topology& topology, const NodeLimits& limits,
       const CoActivation& all, ReplicaCosts::Options options)
      : layer_(layer),
        topology_(topology),
        limits_(limits),
        all_(all),
        options_(std::move(options)) {}

  void compare_by(std::int64_t tokens) { options_.routes.sample = tokens; }

  void consider(const ReplicaCosts& found) {
    auto costs = std::make_unique<ReplicaCosts>(layer_, topology_, limits_, all_.loads(),
                                                found.nodes_of(), options_);
    work_ += costs->work();
    // Loads as searched by: in other tokens they are over a limit by a little anyway.
    const std::pair merit(found.overload(), costs->cost());
    if (!best_ || merit < merit_) {
      best_ = std::move(costs);
      merit_ = merit;
    }
  }

  const ReplicaCosts& costs() const { return *best_; }
  /// Of comparing.
  std::int64_t work() const { return work_; }

 private:
  const LayerTrace& layer_;
  const Topology& topology_;
  const NodeLimits& limits_;
  const CoActivation& all_;
  ReplicaCosts::Options options_;
  std::unique_ptr<ReplicaCosts> best_;
  std::pair<double, double> merit_;
  std::int64_t work_ = 0;
};

std::vector<std::vector<Slot>> slots_of(const ReplicaCosts& costs, const CoActivation& all) {
  const std::vector<double> served = costs.served();
  std::vector<std::vector<Slot>> slots(as_index(costs.nodes()));
  for (std::size_t node = 0; node < slots.size(); ++node) {
    for (int expert = 0; expert < costs.experts(); ++expert) {
      if ((costs.nodes_of()[as_index(expert)] & node_bit(static_cast<int>(node))) != 0) {
        slots[node].push_back({expert, all.group_of(expert),
                               std::llround(served[as_index(expert) * slots.size() + node])});
      }
    }
  }
  return slots;
}

}  // namespace

ReplicatedSlots plan_replicas(const LayerTrace& layer, const Topology& topology,
                              const NodeLimits& limits, const CoActivation& all,
                              const std::vector<int>& nodes, const ReplicaPlan& plan) {
  ReplicaCosts::Options options{.routes = {.flow = plan.flow},
                                .replica = plan.least_saving,
                                .away = plan.away,
                                .was = plan.running};
  const std::int64_t work_of_token = ReplicaCosts::work_of_token(layer, topology, options.routes);
  // Every expert is tried on every node once before the first is added.
  const auto choices = static_cast<double>(layer.groups.size()) * std::max(1.0, all.choices());
  const auto looks = static_cast<double>(plan.search.work) / static_cast<double>(work_of_token);
  const auto sample =
      static_cast<std::int64_t>(looks * kShareOfFirstLook / (choices * topology.nodes()));
  options.routes.sample = std::clamp(sample, kFewestSampled, kMostSampled);
  const auto costs_of = [&](std::vector<NodeSet> sets) {
    return std::make_unique<ReplicaCosts>(layer, topology, limits, all.loads(), std::move(sets),
                                          options);
  };
  std::vector<std::unique_ptr<ReplicaCosts>> starts;
  starts.push_back(costs_of(one_each(nodes)));
  Best best(layer, topology, limits, all, options);
  best.compare_by(std::max(kFewestCompared, plan.search.work / work_of_token / kShareToCompare));
  best.consider(*starts.front());
  if (is_tight(limits, all) || starts.front()->overload() > 0) {
    starts.push_back(costs_of(balanced(limits, all)));
  }
  std::unique_ptr<ReplicaCosts> clones;
  for (std::size_t size = 1; 2 * size <= limits.slots.size(); size *= 2) {
    if (auto sets = cloned(limits, all, size, plan.search.seed)) {
      auto costs = costs_of(std::move(*sets));
      if (!clones || std::pair(costs->overload(), costs->cost()) <
                         std::pair(clones->overload(), clones->cost())) {
        clones = std::move(costs);
      }
    }
  }
  if (clones) {
    starts.push_back(std::move(clones));
  }
  if (!plan.running.empty() && fit(plan.running, limits)) {
    starts.push_back(costs_of(plan.running));
  }
  std::int64_t work = 0;
  for (const auto& costs : starts) {
    const std::int64_t share = costs == starts.front() ? kShareOfFirst : 1;
    work += costs->work();  // so far, to look at what it begins with
    work += place_replicas(*costs, all,
                           {.work = plan.search.work * share /
                                    (kShareOfFirst + static_cast<std::int64_t>(starts.size()) - 1),
                            .seed = plan.search.seed});
    best.consider(*costs);
  }
  return {.slots = slots_of(best.costs(), all), .work = work + best.work()};
}

}  // namespace cartesian
