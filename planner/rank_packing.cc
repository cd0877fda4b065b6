#include "planner/rank_packing.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

namespace {

/// Choices of A's experts, of B's, of both.
using Load = std::array<std::int64_t, 3>;
/// The same, for a rank's share.
using RelativeLoad = std::array<double, 3>;

class Packing {
 public:
  Packing(std::span<const Slot> node, const RankPackingOptions& options)
      : node_(node),
        options_(options),
        rank_of_(node.size(), -1),
        load_(as_index(options.ranks)),
        size_(as_index(options.ranks)) {
    for (std::size_t i = 1; i < node.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        replicated_ = replicated_ || node[i].expert == node[j].expert;
      }
    }
  }

  RankPacking pack() {
    for (std::size_t i = 0; i < options_.was.size(); ++i) {
      const int rank = options_.was[i];
      if (rank >= 0 && has_slot(rank) && !holds(rank, node_[i].expert)) {
        put(i, rank);
      }
    }
    std::vector<std::size_t> order(node_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, {}, [&](std::size_t i) { return std::pair(-node_[i].load, i); });
    for (const std::size_t i : order) {
      if (rank_of_[i] < 0) {
        place(i);
      }
    }
    // With one slot each, ranks can only exchange loads.
    while (options_.slots > 1 && most()[2] > options_.enough && relieve()) {
    }
    return {std::move(rank_of_), most()[2]};
  }

 private:
  struct Swap {
    std::size_t given;
    std::size_t taken;  // node_.size(): a free slot
    int to;
  };

  bool has_slot(int rank) const { return size_[as_index(rank)] < options_.slots; }
  /// Whether a slot other than `beside` has the expert there.
  bool holds(int rank, int expert, std::size_t beside = std::size_t(-1)) const {
    if (!replicated_) {
      return false;
    }
    for (std::size_t i = 0; i < node_.size(); ++i) {
      if (i != beside && rank_of_[i] == rank && node_[i].expert == expert) {
        return true;
      }
    }
    return false;
  }

  Load load_of(std::size_t i) const {
    Load load{0, 0, node_[i].load};
    load.at(as_index(node_[i].group)) = node_[i].load;
    return load;
  }

  RelativeLoad relative(const Load& load, int rank) const {
    const double share = options_.shares.empty() ? 1 : options_.shares[as_index(rank)];
    RelativeLoad relative{};
    for (std::size_t i = 0; i < load.size(); ++i) {
      relative.at(i) = static_cast<double>(load.at(i)) / share;
    }
    return relative;
  }

  /// The largest of all ranks; of two of them, if others are to come instead of theirs.
  RelativeLoad most(int a = -1, const Load& at_a = {}, int b = -1, const Load& at_b = {}) const {
    RelativeLoad most{};
    for (int rank = 0; rank < options_.ranks; ++rank) {
      const RelativeLoad load = relative(rank == a   ? at_a
                                         : rank == b ? at_b
                                                     : load_[as_index(rank)],
                                         rank);
      for (std::size_t i = 0; i < most.size(); ++i) {
        most.at(i) = std::max(most.at(i), load.at(i));
      }
    }
    return most;
  }
  /// What is lowered: by how much the limit is exceeded, then the largest loads.
  std::pair<double, double> merit(const RelativeLoad& most) const {
    return {options_.limit > 0 ? std::max(0.0, most[2] - options_.limit) : 0,
            most[0] + most[1] + most[2]};
  }

  void put(std::size_t i, int rank) {
    const Load load = load_of(i);
    for (std::size_t of = 0; of < load.size(); ++of) {
      if (rank_of_[i] >= 0) {
        load_[as_index(rank_of_[i])].at(of) -= load.at(of);
      }
      load_[as_index(rank)].at(of) += load.at(of);
    }
    if (rank_of_[i] >= 0) {
      --size_[as_index(rank_of_[i])];
    }
    ++size_[as_index(rank)];
    rank_of_[i] = rank;
  }

  void place(std::size_t i) {
    const std::size_t group = as_index(node_[i].group);
    const auto loaded = [&](int rank) {  // with it: a small share would be full at once
      Load load = load_[as_index(rank)];
      load.at(group) += node_[i].load;
      load[2] += node_[i].load;
      const RelativeLoad then = relative(load, rank);
      return std::pair(then.at(group), then[2]);
    };
    int best = -1;
    for (int rank = 0; rank < options_.ranks; ++rank) {
      if (has_slot(rank) && (best < 0 || loaded(rank) < loaded(best)) &&
          !holds(rank, node_[i].expert)) {
        best = rank;
      }
    }
    if (best >= 0) {
      put(i, best);
    }
  }

  /// The swap of an expert on one of the most loaded ranks, with one of another rank or a free slot
  /// there, that lowers the largest loads most. False if there is none.
  bool relieve() {
    const RelativeLoad now = most();
    auto least = merit(now);
    Swap best{node_.size(), node_.size(), -1};
    for (std::size_t i = 0; i < node_.size(); ++i) {
      const int from = rank_of_[i];
      if (from < 0 || !is_most(from, now)) {
        continue;
      }
      const auto consider = [&](int to, std::size_t back) {
        if (to < 0 || to == from || holds(to, node_[i].expert, back) ||
            (back < node_.size() && holds(from, node_[back].expert, i))) {
          return;
        }
        Load at_from = load_[as_index(from)];
        Load at_to = load_[as_index(to)];
        const Load given = load_of(i);
        const Load taken = back < node_.size() ? load_of(back) : Load{};
        for (std::size_t of = 0; of < given.size(); ++of) {
          at_from.at(of) += taken.at(of) - given.at(of);
          at_to.at(of) += given.at(of) - taken.at(of);
        }
        const auto then = merit(most(from, at_from, to, at_to));
        if (then < least) {
          least = then;
          best = {i, back, to};
        }
      };
      for (std::size_t j = 0; j < node_.size(); ++j) {
        consider(rank_of_[j], j);
      }
      for (int rank = 0; rank < options_.ranks; ++rank) {
        if (has_slot(rank)) {
          consider(rank, node_.size());
        }
      }
    }
    if (best.to < 0) {
      return false;
    }
    const int from = rank_of_[best.given];
    put(best.given, best.to);
    if (best.taken < node_.size()) {
      put(best.taken, from);
    }
    return true;
  }

  bool is_most(int rank, const RelativeLoad& most) const {
    const RelativeLoad load = relative(load_[as_index(rank)], rank);
    return load[0] == most[0] || load[1] == most[1] || load[2] == most[2];
  }

  std::span<const Slot> node_;
  const RankPackingOptions& options_;
  bool replicated_ = false;   // some expert is there twice
  std::vector<int> rank_of_;  // [slots of the node]
  std::vector<Load> load_;    // [ranks]
  std::vector<int> size_;     // [ranks]
};

}  // namespace

RankPacking pack_ranks(std::span<const Slot> node, const RankPackingOptions& options) {
  check(node.size() <= as_index(std::int64_t{options.ranks} * options.slots),
        "the experts of a node fit its slots");
  RankPacking packed = Packing(node, options).pack();
  if (!options.was.empty() && packed.most_load > options.enough) {
    RankPackingOptions anew = options;
    anew.was = {};
    RankPacking other = Packing(node, anew).pack();
    if (other.most_load <= options.enough) {
      return other;
    }
  }
  return packed;
}

}  // namespace cartesian
