#include "planner/balance.h"

#include <algorithm>
#include <queue>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

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

std::vector<std::vector<Slot>> balance_nodes(std::span<const std::int64_t> loads,
                                             std::span<const int> replicas,
                                             std::span<const int> slots) {
  struct Fill {
    double load;  // for each slot
    int node;
    bool operator<(const Fill& other) const {
      return load != other.load ? load > other.load : node > other.node;
    }
  };
  std::vector<Slot> items;
  for (std::size_t expert = 0; expert < loads.size(); ++expert) {
    for (int i = 0; i < replicas[expert]; ++i) {
      items.push_back({static_cast<int>(expert), loads[expert] / replicas[expert]});
    }
  }
  std::ranges::stable_sort(items, std::greater<>(), &Slot::load);
  std::priority_queue<Fill> queue;
  for (std::size_t node = 0; node < slots.size(); ++node) {
    if (slots[node] > 0) {
      queue.push({0, static_cast<int>(node)});
    }
  }
  std::vector<std::vector<Slot>> on_node(slots.size());
  std::vector<Fill> passed_over;
  for (const Slot& item : items) {
    const auto holds = [&](int node) {
      return replicas[as_index(item.expert)] > 1 &&
             std::ranges::find(on_node[as_index(node)], item.expert, &Slot::expert) !=
                 on_node[as_index(node)].end();
    };
    check(!queue.empty(), "there are slots for all replicas");
    while (!queue.empty() && holds(queue.top().node)) {
      passed_over.push_back(queue.top());
      queue.pop();
    }
    Fill chosen = queue.empty() ? passed_over.front() : queue.top();
    if (queue.empty()) {
      passed_over.erase(passed_over.begin());
    } else {
      queue.pop();
    }
    auto& held = on_node[as_index(chosen.node)];
    held.push_back(item);
    const int size = slots[as_index(chosen.node)];
    if (static_cast<int>(held.size()) < size) {
      chosen.load += static_cast<double>(item.load) / size;
      queue.push(chosen);
    }
    for (const Fill& fill : passed_over) {
      queue.push(fill);
    }
    passed_over.clear();
  }
  return on_node;
}

}  // namespace cartesian
