#include "planner/balance.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <utility>

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

/// The nodes with free slots of a group, the one with least load for its share first.
class OpenNodes {
 public:
  OpenNodes(std::span<const int> slots, std::span<const double> shares)
      : by_slots_(shares.empty()), left_(slots.begin(), slots.end()) {
    if (by_slots_) {
      shares_.assign(slots.begin(), slots.end());
    } else {
      shares_.assign(shares.begin(), shares.end());
    }
    for (std::size_t node = 0; node < slots.size(); ++node) {
      if (slots[node] > 0) {
        open_.push_back({0, node});
      }
    }
  }

  /// Gives replicas of one expert to the least loaded nodes, to each at most one until all have
  /// one.
  template <class Give>
  void take(int replicas, std::int64_t load, const Give& give) {
    for (int i = 0; i < replicas; ++i) {
      if (open_.empty()) {
        reopen();
      }
      check(!open_.empty(), "there are slots for all replicas");
      bring_next_to_back(static_cast<double>(load));
      Open& taken = taken_.emplace_back(open_.back());
      open_.pop_back();
      give(taken.node);
      taken.load += static_cast<double>(load) / shares_[taken.node];
      --left_[taken.node];
    }
    reopen();
  }

 private:
  struct Open {
    double load;
    std::size_t node;
    auto operator<=>(const Open&) const = default;
  };

  /// A node with a small share may be the one with least load and yet come to have most.
  void bring_next_to_back(double load) {
    if (by_slots_) {
      std::ranges::pop_heap(open_, std::greater<>());
      return;
    }
    std::iter_swap(std::ranges::min_element(open_, {},
                                            [&](const Open& open) {
                                              return std::pair(
                                                  open.load + load / shares_[open.node], open.node);
                                            }),
                   open_.end() - 1);
  }

  void reopen() {
    for (const Open& taken : taken_) {
      if (left_[taken.node] > 0) {
        open_.push_back(taken);
        if (by_slots_) {
          std::ranges::push_heap(open_, std::greater<>());
        }
      }
    }
    taken_.clear();
  }

  bool by_slots_;
  std::vector<double> shares_;
  std::vector<int> left_;
  std::vector<Open> open_;   // a heap, if by slots
  std::vector<Open> taken_;  // have the expert
};

/// One group's experts, numbered from `first`, to nodes that have slots for it.
void balance_group(std::span<const std::int64_t> loads, int first, int group,
                   std::span<const int> replicas, OpenNodes nodes,
                   std::vector<std::vector<Slot>>& on_node) {
  std::vector<Slot> items;  // of each expert's replicas, one
  items.reserve(loads.size());
  for (std::size_t expert = 0; expert < loads.size(); ++expert) {
    items.push_back({first + static_cast<int>(expert), group, loads[expert] / replicas[expert]});
  }
  std::ranges::stable_sort(items, std::greater<>(), &Slot::load);
  for (const Slot& item : items) {
    nodes.take(replicas[as_index(item.expert - first)], item.load,
               [&](std::size_t node) { on_node[node].push_back(item); });
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
                                             std::span<const int> slots, int most_replicas,
                                             std::span<const double> shares) {
  std::vector<std::vector<Slot>> on_node(slots.size());
  for (std::size_t node = 0; node < slots.size(); ++node) {
    on_node[node].reserve(as_index(slots[node]));
  }
  const std::size_t experts = loads.size() / as_index(groups);
  for (int group = 0; group < groups; ++group) {
    const auto of_group = loads.subspan(as_index(group) * experts, experts);
    const std::vector<int> room = slots_of_group(slots, group, groups);
    const std::vector<int> replicas =
        replica_counts(of_group, std::reduce(room.begin(), room.end()), most_replicas);
    balance_group(of_group, group * static_cast<int>(experts), group, replicas,
                  OpenNodes(room, shares), on_node);
  }
  return on_node;
}

std::vector<int> balanced_assignment(std::span<const std::int64_t> loads, int groups,
                                     std::span<const int> slots, std::span<const double> shares) {
  std::vector<int> nodes(loads.size());
  const auto on_node = balance_nodes(loads, groups, slots, 1, shares);
  for (std::size_t node = 0; node < on_node.size(); ++node) {
    for (const Slot& slot : on_node[node]) {
      nodes[as_index(slot.expert)] = static_cast<int>(node);
    }
  }
  return nodes;
}

}  // namespace cartesian
