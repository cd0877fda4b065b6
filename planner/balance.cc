#include "planner/balance.h"

#include <algorithm>
#include <numeric>
#include <queue>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

namespace {

/// Replicas of each expert, together `slots` if `most` of each allow it: again and again one more
/// for the expert whose replicas have most load each.
std::vector<int> replica_counts(std::span<const std::int64_t> loads, int slots, int most) {
  struct Share {
    double load;
    int expert;
    bool operator<(const Share& other) const {
      return load != other.load ? load < other.load : expert > other.expert;
    }
  };
  check(loads.size() <= as_index(slots), "there are slots for all experts");
  std::vector<int> counts(loads.size(), 1);
  std::vector<Share> shares;
  for (std::size_t expert = 0; expert < loads.size(); ++expert) {
    shares.push_back({static_cast<double>(loads[expert]), static_cast<int>(expert)});
  }
  std::priority_queue<Share> queue(std::less<Share>(), std::move(shares));
  for (int left = slots - static_cast<int>(loads.size()); left > 0 && !queue.empty();) {
    const int expert = queue.top().expert;
    queue.pop();
    int& count = counts[as_index(expert)];
    if (count < most) {
      ++count;
      --left;
      queue.push({static_cast<double>(loads[as_index(expert)]) / count, expert});
    }
  }
  return counts;
}

/// One group's experts, numbered from `first`, to nodes that have `slots` for it.
void balance_group(std::span<const std::int64_t> loads, int first, int group,
                   std::span<const int> replicas, std::span<const int> slots,
                   std::vector<std::vector<Slot>>& on_node) {
  std::vector<Slot> items;
  for (std::size_t expert = 0; expert < loads.size(); ++expert) {
    for (int i = 0; i < replicas[expert]; ++i) {
      items.push_back({first + static_cast<int>(expert), group, loads[expert] / replicas[expert]});
    }
  }
  std::ranges::stable_sort(items, std::greater<>(), &Slot::load);
  std::vector<int> left(slots.begin(), slots.end());
  std::vector<double> load(slots.size());     // for each slot
  std::vector<int> latest(slots.size(), -1);  // replicas of an expert come one after the other
  for (const Slot& item : items) {
    std::size_t best = slots.size();
    for (std::size_t node = 0; node < slots.size(); ++node) {
      if (left[node] == 0) {
        continue;
      }
      const bool holds = latest[node] == item.expert;
      const bool best_holds = best < slots.size() && latest[best] == item.expert;
      if (best == slots.size() || (holds != best_holds ? best_holds : load[node] < load[best])) {
        best = node;
      }
    }
    check(best < slots.size(), "there are slots for all replicas");
    on_node[best].push_back(item);
    load[best] += static_cast<double>(item.load) / slots[best];
    latest[best] = item.expert;
    --left[best];
  }
}

/// [nodes] of a group: its share of every node's slots, or as nearly so as whole slots allow.
std::vector<int> slots_of_group(std::span<const int> slots, int group, int groups) {
  std::vector<int> of_group;
  std::int64_t before = 0;
  for (const int node : slots) {
    const auto share = [&](std::int64_t all) {
      return all * (group + 1) / groups - all * group / groups;
    };
    of_group.push_back(static_cast<int>(share(before + node) - share(before)));
    before += node;
  }
  return of_group;
}

}  // namespace

std::vector<std::vector<Slot>> balance_nodes(std::span<const std::int64_t> loads, int groups,
                                             std::span<const int> slots, int most_replicas) {
  std::vector<std::vector<Slot>> on_node(slots.size());
  const std::size_t experts = loads.size() / as_index(groups);
  for (int group = 0; group < groups; ++group) {
    const auto of_group = loads.subspan(as_index(group) * experts, experts);
    const std::vector<int> room = slots_of_group(slots, group, groups);
    const std::vector<int> replicas =
        replica_counts(of_group, std::reduce(room.begin(), room.end()), most_replicas);
    balance_group(of_group, group * static_cast<int>(experts), group, replicas, room, on_node);
  }
  return on_node;
}

std::vector<int> balanced_assignment(std::span<const std::int64_t> loads, int groups,
                                     std::span<const int> slots) {
  std::vector<int> nodes(loads.size());
  const auto on_node = balance_nodes(loads, groups, slots, 1);
  for (std::size_t node = 0; node < on_node.size(); ++node) {
    for (const Slot& slot : on_node[node]) {
      nodes[as_index(slot.expert)] = static_cast<int>(node);
    }
  }
  return nodes;
}

}  // namespace cartesian
