#include "planner/rank_repair.h"

#include <algorithm>
#include <numeric>

#include "base/index.h"
#include "planner/rank_packing.h"

namespace cartesian {

namespace {

struct Swap {
  double gain;
  int a;
  int b;
};

Slot slot_of(const CoActivation& all, int expert) {
  return {expert, all.group_of(expert), all.load(expert)};
}

/// [nodes].
std::vector<std::vector<Slot>> slots_of(const CoActivation& all, std::span<const int> node_of,
                                        std::size_t nodes) {
  std::vector<std::vector<Slot>> slots(nodes);
  for (std::size_t expert = 0; expert < node_of.size(); ++expert) {
    slots[as_index(node_of[expert])].push_back(slot_of(all, static_cast<int>(expert)));
  }
  return slots;
}

double most_loaded(std::span<const Slot> slots, int node, const RankLimits& limits) {
  return pack_ranks(slots, {.ranks = limits.ranks[as_index(node)],
                            .slots = limits.slots,
                            .shares = limits.shares_on(as_index(node)),
                            .was = {},
                            .enough = limits.load_on(as_index(node)),
                            .limit = limits.load_on(as_index(node))})
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
      const Loads more = partition.loads(a) - partition.loads(b);
      if (other != node && more.both() > 0 &&
          limits.allow(other, partition.node_load(other), more) &&
          limits.allow(node, partition.node_load(node), Loads{} - more)) {
        swaps.push_back({partition.gain(a, other) + partition.gain(b, node), a, b});
      }
    }
  }
  std::ranges::stable_sort(swaps, std::greater<>(), &Swap::gain);
  return swaps;
}

}  // namespace

std::span<const double> RankLimits::shares_on(std::size_t node) const {
  return shares.empty() ? std::span<const double>() : shares[node];
}

double RankLimits::share_of(std::size_t node) const {
  return shares.empty() ? ranks[node] : std::reduce(shares[node].begin(), shares[node].end());
}

std::vector<double> most_loaded_ranks(const CoActivation& all, std::span<const int> nodes,
                                      const RankLimits& limits) {
  std::vector<double> most;
  const auto slots = slots_of(all, nodes, limits.ranks.size());
  for (std::size_t node = 0; node < slots.size(); ++node) {
    most.push_back(most_loaded(slots[node], static_cast<int>(node), limits));
  }
  return most;
}

void repair_ranks(Partition& partition, const NodeLimits& nodes, const RankLimits& ranks,
                  int tries) {
  const CoActivation& all = partition.all();
  std::vector<double> most = most_loaded_ranks(all, partition.assignment(), ranks);
  while (tries > 0) {
    std::vector<double> over = most;
    for (std::size_t i = 0; i < over.size(); ++i) {
      over[i] -= ranks.load_on(i);
    }
    const auto node = static_cast<int>(std::ranges::max_element(over) - over.begin());
    const double worst = most[as_index(node)];
    if (worst <= ranks.load_on(as_index(node))) {
      return;
    }
    bool found = false;
    for (const Swap& swap : swaps_of(partition, nodes, node)) {
      if (tries-- <= 0) {
        break;
      }
      const int other = partition.node_of(swap.b);
      auto slots = slots_of(all, partition.assignment(), ranks.ranks.size());
      *std::ranges::find(slots[as_index(node)], swap.a, &Slot::expert) = slot_of(all, swap.b);
      *std::ranges::find(slots[as_index(other)], swap.b, &Slot::expert) = slot_of(all, swap.a);
      const double here = most_loaded(slots[as_index(node)], node, ranks);
      const double there = most_loaded(slots[as_index(other)], other, ranks);
      if (here < worst &&
          (there <= most[as_index(other)] || there <= ranks.load_on(as_index(other)))) {
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
