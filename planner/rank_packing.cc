#include "planner/rank_packing.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

namespace {

class Packing {
 public:
  Packing(std::span<const Slot> node, const RankPackingOptions& options)
      : node_(node),
        options_(options),
        rank_of_(node.size(), -1),
        load_(as_index(options.ranks)),
        size_(as_index(options.ranks)) {}

  RankPacking pack() {
    for (std::size_t i = 0; i < options_.was.size(); ++i) {
      const int rank = options_.was[i];
      if (rank >= 0 && has_slot(rank) && !holds(rank, node_[i].expert)) {
        put(i, rank);
      }
    }
    std::vector<std::size_t> order(node_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, std::greater<>(), [&](std::size_t i) { return node_[i].load; });
    for (const std::size_t i : order) {
      if (rank_of_[i] < 0) {
        place(i);
      }
    }
    while (static_cast<double>(load_[most_loaded()]) > options_.enough && relieve()) {
    }
    return {std::move(rank_of_), load_[most_loaded()]};
  }

 private:
  bool has_slot(int rank) const { return size_[as_index(rank)] < options_.slots; }
  /// Whether a slot other than `beside` has the expert there.
  bool holds(int rank, int expert, std::size_t beside = std::size_t(-1)) const {
    for (std::size_t i = 0; i < node_.size(); ++i) {
      if (i != beside && rank_of_[i] == rank && node_[i].expert == expert) {
        return true;
      }
    }
    return false;
  }
  std::size_t most_loaded() const {
    return static_cast<std::size_t>(std::ranges::max_element(load_) - load_.begin());
  }

  void put(std::size_t i, int rank) {
    if (rank_of_[i] >= 0) {
      load_[as_index(rank_of_[i])] -= node_[i].load;
      --size_[as_index(rank_of_[i])];
    }
    rank_of_[i] = rank;
    load_[as_index(rank)] += node_[i].load;
    ++size_[as_index(rank)];
  }

  void place(std::size_t i) {
    int best = -1;
    for (int rank = 0; rank < options_.ranks; ++rank) {
      if (has_slot(rank) && (best < 0 || load_[as_index(rank)] < load_[as_index(best)]) &&
          !holds(rank, node_[i].expert)) {
        best = rank;
      }
    }
    if (best >= 0) {
      put(i, best);
    }
  }

  /// The swap of one of the most loaded rank's experts, with one of another rank or a free slot
  /// there, after which the larger of the two loads is smallest. False if that is no less.
  bool relieve() {
    const auto most = static_cast<int>(most_loaded());
    std::int64_t best = load_[as_index(most)];
    std::size_t given = node_.size();
    std::size_t taken = node_.size();
    int to = -1;
    for (std::size_t i = 0; i < node_.size(); ++i) {
      if (rank_of_[i] != most) {
        continue;
      }
      const auto consider = [&](int rank, std::size_t back, std::int64_t back_load) {
        const std::int64_t more = node_[i].load - back_load;
        const std::int64_t larger =
            std::max(load_[as_index(most)] - more, load_[as_index(rank)] + more);
        if (larger < best && !holds(rank, node_[i].expert, back) &&
            (back == node_.size() || !holds(most, node_[back].expert, i))) {
          best = larger;
          given = i;
          taken = back;
          to = rank;
        }
      };
      for (std::size_t j = 0; j < node_.size(); ++j) {
        if (rank_of_[j] >= 0 && rank_of_[j] != most) {
          consider(rank_of_[j], j, node_[j].load);
        }
      }
      for (int rank = 0; rank < options_.ranks; ++rank) {
        if (rank != most && has_slot(rank)) {
          consider(rank, node_.size(), 0);
        }
      }
    }
    if (to < 0) {
      return false;
    }
    put(given, to);
    if (taken < node_.size()) {
      put(taken, most);
    }
    return true;
  }

  std::span<const Slot> node_;
  const RankPackingOptions& options_;
  std::vector<int> rank_of_;        // [slots of the node]
  std::vector<std::int64_t> load_;  // [ranks]
  std::vector<int> size_;           // [ranks]
};

}  // namespace

RankPacking pack_ranks(std::span<const Slot> node, const RankPackingOptions& options) {
  check(node.size() <= as_index(std::int64_t{options.ranks} * options.slots),
        "the experts of a node fit its slots");
  return Packing(node, options).pack();
}

}  // namespace cartesian
