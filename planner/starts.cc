#include "planner/starts.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

namespace {

std::vector<int> heaviest_first(std::span<const std::int64_t> loads) {
  std::vector<int> order(loads.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater<>(),
                           [&](int expert) { return loads[as_index(expert)]; });
  return order;
}

}  // namespace

std::vector<int> linear_start(const LayerTrace& layer, const Topology& topology) {
  const auto groups = static_cast<int>(layer.groups.size());
  const Placement placement = Placement::linear(
      {.layers = 1, .groups = groups, .experts = layer.experts, .ranks = topology.ranks()},
      topology.ranks());
  std::vector<int> nodes;
  for (int group = 0; group < groups; ++group) {
    for (int expert = 0; expert < layer.experts; ++expert) {
      nodes.push_back(topology.node(placement.replicas(0, group, expert)[0]));
    }
  }
  return nodes;
}

std::vector<int> balanced_start(std::span<const std::int64_t> loads, const NodeLimits& limits) {
  const std::size_t nodes = limits.slots.size();
  std::vector<double> load(nodes);
  std::vector<int> size(nodes);
  std::vector<int> assignment(loads.size());
  // A node with a small share may be the one with least load and yet come to have most.
  const auto loaded = [&](std::size_t node, int expert) {
    return limits.shares.empty()
               ? load[node] / limits.slots[node]
               : (load[node] + static_cast<double>(loads[as_index(expert)])) / limits.shares[node];
  };
  for (const int expert : heaviest_first(loads)) {
    std::size_t best = nodes;
    for (std::size_t node = 0; node < nodes; ++node) {
      if (size[node] < limits.slots[node] &&
          (best == nodes || loaded(node, expert) < loaded(best, expert))) {
        best = node;
      }
    }
    check(best < nodes, "there are slots for all experts");
    load[best] += static_cast<double>(loads[as_index(expert)]);
    ++size[best];
    assignment[as_index(expert)] = static_cast<int>(best);
  }
  return assignment;
}

std::vector<int> cluster_start(const CoActivation& all, const Partition::Costs& costs,
                               const NodeLimits& limits) {
  const int experts = all.experts();
  const auto nodes = static_cast<int>(limits.slots.size());
  std::vector<int> assignment(as_index(experts), -1);
  std::vector<double> affinity(as_index(experts));
  // Slots of a node that others could not take anyway are left empty at the end.
  int left = experts;
  int slots_left = std::reduce(limits.slots.begin(), limits.slots.end());
  const std::vector<int> order = heaviest_first(all.loads());
  for (int node = 0; node < nodes; ++node) {
    const int slots = limits.slots[as_index(node)];
    slots_left -= slots;
    const int share =
        std::max(left - slots_left, static_cast<int>(static_cast<std::int64_t>(left) * slots /
                                                     std::max(1, slots + slots_left)));
    std::ranges::fill(affinity, 0.0);
    Loads load;
    for (int taken = 0; taken < std::min(share, slots) && left > 0; ++taken, --left) {
      int best = -1;
      int lightest = -1;
      for (const int expert : order) {
        if (assignment[as_index(expert)] >= 0) {
          continue;
        }
        lightest = expert;
        if (limits.allow(node, load, all.loads(expert)) &&
            (best < 0 || affinity[as_index(expert)] > affinity[as_index(best)])) {
          best = expert;
        }
      }
      best = best >= 0 ? best : lightest;
      assignment[as_index(best)] = node;
      load += all.loads(best);
      for (int other = 0; other < experts; ++other) {
        const double weight =
            all.same_group(best, other) ? costs.visit[as_index(node)] : costs.meet;
        affinity[as_index(other)] +=
            weight * static_cast<double>(all.together(best, other)) /
            static_cast<double>(std::max<std::int64_t>(1, all.load(other)));
      }
    }
  }
  return assignment;
}

}  // namespace cartesian
