#include "planner/rank_repair.h"

#include <algorithm>

#include "base/index.h"
#include "planner/rank_packing.h"

namespace cartesian {

namespace {

struct Swap {
  double gain;
  int a;
  int b;
};

std::vector<std::vector<Slot>> slots_of(const Partition& partition) {
  std::vector<std::vector<Slot>> slots(as_index(partition.nodes()));
  for (int expert = 0; expert < partition.experts(); ++expert) {
    slots[as_index(partition.node_of(expert))].push_back({expert, partition.load(expert)});
  }
  return slots;
}

std::int64_t most_loaded(std::span<const Slot> slots, int node, const RankLimits& limits) {
  return pack_ranks(slots, {.ranks = limits.ranks[as_index(node)],
                            .slots = limits.slots,
                            .was = {},
                            .enough = limits.load})
      .most_load;
}

/// Of the node's experts with lighter ones elsewhere, the cheapest first.
std::vector<Swap> swaps_of(const Partition& partition, const NodeLimits& limits, int node) {
  std::vector<Swap> swaps;
  for (int a = 0; a < partition.experts(); ++a) {
    if (partition.node_of(a) != node) {
      continue;
    }
    for (int b = 0; b < partition.experts(); ++b) {
      const int other = partition.node_of(b);
      const std::int64_t more = partition.load(a) - partition.load(b);
      if (other != node && more > 0 &&
          static_cast<double>(partition.node_load(other) + more) <= limits.load[as_index(other)]) {
        swaps.push_back({partition.gain(a, other) + partition.gain(b, node), a, b});
      }
    }
  }
  std::ranges::stable_sort(swaps, std::greater<>(), &Swap::gain);
  return swaps;
}

}  // namespace

std::vector<std::int64_t> most_loaded_ranks(const Partition& partition, const RankLimits& limits) {
  std::vector<std::int64_t> most;
  const auto slots = slots_of(partition);
  for (int node = 0; node < partition.nodes(); ++node) {
    most.push_back(most_loaded(slots[as_index(node)], node, limits));
  }
  return most;
}

void repair_ranks(Partition& partition, const NodeLimits& nodes, const RankLimits& ranks,
                  int tries) {
  std::vector<std::int64_t> most = most_loaded_ranks(partition, ranks);
  while (tries > 0) {
    const auto worst = std::ranges::max_element(most);
    const auto node = static_cast<int>(worst - most.begin());
    if (static_cast<double>(*worst) <= ranks.load) {
      return;
    }
    bool found = false;
    for (const Swap& swap : swaps_of(partition, nodes, node)) {
      if (tries-- <= 0) {
        break;
      }
      const int other = partition.node_of(swap.b);
      auto slots = slots_of(partition);
      *std::ranges::find(slots[as_index(node)], swap.a, &Slot::expert) = {swap.b,
                                                                          partition.load(swap.b)};
      *std::ranges::find(slots[as_index(other)], swap.b, &Slot::expert) = {swap.a,
                                                                           partition.load(swap.a)};
      const std::int64_t here = most_loaded(slots[as_index(node)], node, ranks);
      const std::int64_t there = most_loaded(slots[as_index(other)], other, ranks);
      if (here < *worst &&
          (there <= most[as_index(other)] || static_cast<double>(there) <= ranks.load)) {
        partition.move(swap.a, other);
        partition.move(swap.b, node);
        most[as_index(node)] = here;
        most[as_index(other)] = there;
        found = true;
        break;
      }
    }
    if (!found) {
      return;
    }
  }
}

}  // namespace cartesian
