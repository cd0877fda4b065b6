#include "planner/replica_search.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <queue>

#include "base/index.h"
#include "planner/dice.h"
#include "planner/graph_search.h"
#include "planner/starts.h"

namespace cartesian {

namespace {

constexpr std::int64_t kShareOfFirst = 4;  // of the work, that one of each other start is
constexpr double kTight = 0.03;
constexpr double kSmoothing = 0.3;
constexpr double kWarm = 1e-3;  // of all copies, that a change may cost more at first
constexpr double kCold = 5e-5;  // and in the end
constexpr std::int64_t kFewestSampled = 256;
constexpr std::int64_t kMostSampled = 4096;
constexpr int kTournament = 4;  // experts that are compared by affinity before one is tried

using Change = ReplicaCosts::Change;

class ReplicaSearch {
 public:
  ReplicaSearch(ReplicaCosts& costs, const CoActivation& all, std::uint64_t seed)
      : costs_(costs), all_(all), dice_(seed) {}

  /// Until a whole round adds nothing.
  void fill() {
    while (fill_once()) {
    }
  }

  /// By simulated annealing: what costs more is taken, too, ever more seldom; the best is kept.
  void exchange_slots(std::int64_t work) {
    const std::int64_t begin = costs_.work();
    const double copies = costs_.copies();
    std::vector<NodeSet> best = costs_.nodes_of();
    double saved = 0;
    double most = 0;
    for (std::int64_t tries = 0; costs_.work() < begin + work && tries < work; ++tries) {
      const double done = static_cast<double>(costs_.work() - begin) / static_cast<double>(work);
      const double warmth = copies * kWarm * std::pow(kCold / kWarm, done);
      const double loss = -warmth * std::log(1 - dice_.uniform());
      const int node = dice_.below(costs_.nodes());
      const int out = pick(node, true);
      const int in = pick(node, false);
      if (out >= 0 && in >= 0) {
        saved += try_exchange(node, out, in, loss);
      }
      if (saved > most) {
        most = saved;
        best = costs_.nodes_of();
      }
    }
    if (saved < most) {
      costs_.assign(std::move(best));
    }
  }

  /// Drops what does not save enough.
  void prune() {
    for (int expert = 0; expert < costs_.experts(); ++expert) {
      for (int node = 0; node < costs_.nodes(); ++node) {
        const NodeSet nodes = nodes_of(expert);
        if (holds(expert, node) && !std::has_single_bit(nodes)) {
          costs_.try_change(std::array<Change, 1>{{{expert, nodes & ~node_bit(node)}}});
        }
      }
    }
  }

 private:
  struct Candidate {
    double saving;
    int expert;
    int node;
    bool operator<(const Candidate& other) const { return saving < other.saving; }
  };

  NodeSet nodes_of(int expert) const { return costs_.nodes_of()[as_index(expert)]; }
  bool holds(int expert, int node) const { return (nodes_of(expert) & node_bit(node)) != 0; }

  bool fill_once() {
    std::priority_queue<Candidate> queue;
    for (int expert = 0; expert < costs_.experts(); ++expert) {
      for (int node = 0; node < costs_.nodes(); ++node) {
        if (!holds(expert, node) && costs_.has_room(expert, node)) {
          queue.push({costs_.saving(expert, node), expert, node});
        }
      }
    }
    // Savings seldom grow as others come: what stays first after it is looked at again is the best.
    bool added = false;
    while (!queue.empty() && queue.top().saving > 0) {
      Candidate candidate = queue.top();
      queue.pop();
      if (!costs_.has_room(candidate.expert, candidate.node)) {
        continue;
      }
      candidate.saving = costs_.saving(candidate.expert, candidate.node);
      if (!queue.empty() && candidate.saving < queue.top().saving) {
        queue.push(candidate);
      } else if (candidate.saving > 0) {
        const NodeSet nodes = nodes_of(candidate.expert) | node_bit(candidate.node);
        added = costs_.try_change(std::array<Change, 1>{{{candidate.expert, nodes}}}).has_value() ||
                added;
      }
    }
    return added;
  }

  /// How much tokens that choose `expert` have to do with the node, by what else is there.
  double affinity(int expert, int node) const {
    double sum = 0;
    for (int other = 0; other < costs_.experts(); ++other) {
      if (other != expert && holds(other, node)) {
        const double weight = all_.same_group(expert, other) ? 2 : 1;
        sum += weight * static_cast<double>(all_.together(expert, other));
      }
    }
    return sum;
  }

  /// Of a few experts that are on the node, or are not, the one that belongs there least, or most;
  /// -1 if it happens upon none.
  int pick(int node, bool held) {
    int best = -1;
    double most = 0;
    for (int i = 0; i < kTournament; ++i) {
      const int expert = dice_.below(costs_.experts());
      if (holds(expert, node) != held) {
        continue;
      }
      const double merit = affinity(expert, node) * (held ? -1 : 1);
      if (best < 0 || merit > most) {
        best = expert;
        most = merit;
      }
    }
    return best;
  }

  /// Returns what it saves, 0 if nothing was exchanged.
  double try_exchange(int node, int out, int in, double loss) {
    const NodeSet of_out = nodes_of(out);
    const NodeSet of_in = nodes_of(in);
    const NodeSet others = of_in & ~of_out;  // nodes where `out` may go in exchange
    if (!std::has_single_bit(of_out) && (others == 0 || dice_.below(2) == 0)) {
      return costs_
          .try_change(std::array<Change, 2>{{{out, of_out & ~node_bit(node)},
                                             {in, of_in | node_bit(node)}}},
                      loss)
          .value_or(0);
    }
    if (others == 0) {
      return 0;
    }
    NodeSet left = others;
    for (int skip = dice_.below(std::popcount(others)); skip > 0; --skip) {
      left &= left - 1;
    }
    const NodeSet other = left & (~left + 1);
    return costs_
        .try_change(std::array<Change, 2>{{{out, (of_out & ~node_bit(node)) | other},
                                           {in, (of_in & ~other) | node_bit(node)}}},
                    loss)
        .value_or(0);
  }

  ReplicaCosts& costs_;
  const CoActivation& all_;
  Dice dice_;
};

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
    for (std::size_t node = first; node < last; ++node) {
      group.load.push_back(limits.load[node] * static_cast<double>(nodes) /
                           static_cast<double>(last - first));
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
  const auto on_node =
      balance_nodes(all.loads(), all.groups(), limits.slots, static_cast<int>(limits.slots.size()));
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

bool better(const ReplicaCosts& a, const ReplicaCosts& b) {
  return a.overload() != b.overload() ? a.overload() < b.overload() : a.cost() < b.cost();
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

void place_replicas(ReplicaCosts& costs, const CoActivation& all,
                    const ReplicaSearchOptions& options) {
  ReplicaSearch search(costs, all, options.seed);
  const std::int64_t end = costs.work() + options.work;
  costs.set_smoothing(kSmoothing);
  search.fill();
  search.exchange_slots((end - costs.work()) / 4);
  costs.set_smoothing(0);
  search.exchange_slots(end - costs.work());
  search.prune();
}

std::vector<std::vector<Slot>> plan_replicas(const LayerTrace& layer, const Topology& topology,
                                             const NodeLimits& limits, const CoActivation& all,
                                             const std::vector<int>& nodes,
                                             const ReplicaPlan& plan) {
  // Every expert is tried on every node once before the first is added.
  const auto choices = static_cast<double>(layer.groups.size()) * std::max(1.0, all.choices());
  const auto sample = static_cast<std::int64_t>(static_cast<double>(plan.search.work) / 8 /
                                                (choices * topology.nodes()));
  const ReplicaCosts::Options options{
      .routes = {.flow = plan.flow, .sample = std::clamp(sample, kFewestSampled, kMostSampled)},
      .replica = plan.least_saving,
      .away = plan.away,
      .was = plan.running};
  const auto costs_of = [&](std::vector<NodeSet> sets) {
    return std::make_unique<ReplicaCosts>(layer, topology, limits, all.loads(), std::move(sets),
                                          options);
  };
  std::vector<std::unique_ptr<ReplicaCosts>> starts;
  starts.push_back(costs_of(one_each(nodes)));
  if (is_tight(limits, all) || starts.front()->overload() > 0) {
    starts.push_back(costs_of(balanced(limits, all)));
  }
  std::unique_ptr<ReplicaCosts> clones;
  for (std::size_t size = 1; 2 * size <= limits.slots.size(); size *= 2) {
    if (auto sets = cloned(limits, all, size, plan.search.seed)) {
      auto costs = costs_of(std::move(*sets));
      if (!clones || better(*costs, *clones)) {
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
  const ReplicaCosts* best = nullptr;
  for (const auto& costs : starts) {
    const std::int64_t share = costs == starts.front() ? kShareOfFirst : 1;
    place_replicas(*costs, all,
                   {.work = plan.search.work * share /
                            (kShareOfFirst + static_cast<std::int64_t>(starts.size()) - 1),
                    .seed = plan.search.seed});
    if (best == nullptr || better(*costs, *best)) {
      best = costs.get();
    }
  }
  return slots_of(*best, all);
}

}  // namespace cartesian
