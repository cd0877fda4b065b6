#include "planner/partition_search.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "base/index.h"
#include "planner/dice.h"

namespace cartesian {

namespace {

constexpr double kLeastGain = 1e-9;
constexpr double kLeastRelief = 1e-6;      // choices: less may be rounding, and come back for ever
constexpr std::int64_t kLooksPerWork = 8;  // estimates that take as long as a token
constexpr int kTried = 2;                  // candidates for each expert that are tried exactly

class Search {
 public:
  Search(Partition& partition, const NodeLimits& limits, std::uint64_t seed)
      : partition_(partition), limits_(limits), dice_(seed), members_(as_index(partition.nodes())) {
    for (int expert = 0; expert < partition_.experts(); ++expert) {
      members_[as_index(partition_.node_of(expert))].push_back(expert);
    }
  }

  /// One try for every expert, in random order. False if none lowered the cost.
  bool pass(std::int64_t end_of_work) {
    std::vector<int> order(as_index(partition_.experts()));
    std::iota(order.begin(), order.end(), 0);
    dice_.shuffle(order);
    bool better = false;
    for (const int expert : order) {
      if (work() >= end_of_work) {
        return false;
      }
      better = improve_one(expert) || better;
    }
    return better;
  }

  /// Random swaps that the limits allow.
  void shake(int count) {
    for (int done = 0, tries = 0; done < count && tries < 100 * count; ++tries) {
      const int a = dice_.below(partition_.experts());
      const int b = dice_.below(partition_.experts());
      if (partition_.node_of(a) != partition_.node_of(b) && fits(a, partition_.node_of(b), b)) {
        swap(a, b);
        ++done;
      }
    }
  }

  void move(int expert, int node) {
    auto& from = members_[as_index(partition_.node_of(expert))];
    from.erase(std::ranges::find(from, expert));
    members_[as_index(node)].push_back(expert);
    partition_.move(expert, node);
  }
  void swap(int a, int b) {
    const int node_a = partition_.node_of(a);
    const int node_b = partition_.node_of(b);
    move(a, node_b);
    move(b, node_a);
  }

  /// Of the partition, and of looking for what to try.
  std::int64_t work() const { return partition_.work() + looks_ / kLooksPerWork; }

  int random_count(int least, int most) { return least + dice_.below(most - least + 1); }

 private:
  struct Candidate {
    double gain = -std::numeric_limits<double>::infinity();
    int node = -1;
  };

  /// Whether `expert` may go to `node` while `back` (or nothing, if negative) comes from there.
  bool fits(int expert, int node, int back) const {
    const int from = partition_.node_of(expert);
    const Loads more = partition_.loads(expert) - (back >= 0 ? partition_.loads(back) : Loads{});
    return (back >= 0 || partition_.node_size(node) < limits_.slots[as_index(node)]) &&
           limits_.allow(node, partition_.node_load(node), more) &&
           limits_.allow(from, partition_.node_load(from), Loads{} - more);
  }

  bool improve_one(int expert) {
    looks_ += partition_.experts() + partition_.nodes();
    std::array<Candidate, kTried> best{};
    for (int node = 0; node < partition_.nodes(); ++node) {
      if (node != partition_.node_of(expert)) {
        insert(best, {estimate(expert, node), node});
      }
    }
    for (const Candidate& candidate : best) {
      if (candidate.gain > kLeastGain && try_node(expert, candidate.node)) {
        return true;
      }
    }
    return false;
  }

  static void insert(std::array<Candidate, kTried>& best, Candidate candidate) {
    for (Candidate& other : best) {
      if (candidate.gain > other.gain) {
        std::swap(candidate, other);
      }
    }
  }

  /// Of the best swap or move of `expert` to `node`. Two experts of one group that tokens choose
  /// together gain less than each alone: how much less is half known.
  double estimate(int expert, int node) const {
    const double alone = partition_.gain(expert, node);
    const int from = partition_.node_of(expert);
    double best = fits(expert, node, -1) ? alone : -std::numeric_limits<double>::infinity();
    for (const int other : members_[as_index(node)]) {
      const double together =
          partition_.same_group(expert, other)
              ? partition_.costs().visit[as_index(node)] * partition_.together(expert, other)
              : 0;
      const double gain = alone + partition_.gain(other, from) - together;
      if (gain > best && fits(expert, node, other)) {
        best = gain;
      }
    }
    return best;
  }

  bool try_node(int expert, int node) {
    const int from = partition_.node_of(expert);
    const double alone = partition_.gain(expert, node);
    const bool room = fits(expert, node, -1);
    std::vector<int> partners;
    for (const int other : members_[as_index(node)]) {
      if (fits(expert, node, other)) {
        partners.push_back(other);
      }
    }
    move(expert, node);
    double best = room ? alone : kLeastGain;
    int partner = -1;
    for (const int other : partners) {
      const double gain = alone + partition_.gain(other, from);
      if (gain > best) {
        best = gain;
        partner = other;
      }
    }
    if (partner >= 0) {
      move(partner, from);
      return true;
    }
    if (room && alone > kLeastGain) {
      return true;
    }
    move(expert, from);
    return false;
  }

  Partition& partition_;
  const NodeLimits& limits_;
  Dice dice_;
  std::vector<std::vector<int>> members_;  // [nodes] experts
  std::int64_t looks_ = 0;
};

/// A swap, or a move to a free slot (`back` negative), that takes away overload.
struct Relief {
  int expert = -1;  ///< none
  int node = -1;
  int back = -1;
  double merit =
      -std::numeric_limits<double>::infinity();  ///< cost that it takes, for the overload
};

void consider(const Partition& partition, const NodeLimits& limits, int expert, int to, int back,
              Relief& best) {
  const int from = partition.node_of(expert);
  const Loads more = partition.loads(expert) - (back >= 0 ? partition.loads(back) : Loads{});
  const Loads& load_from = partition.node_load(from);
  const Loads& load_to = partition.node_load(to);
  const double less = limits.overload(from, load_from) + limits.overload(to, load_to) -
                      limits.overload(from, load_from - more) - limits.overload(to, load_to + more);
  if (less <= kLeastRelief) {
    return;
  }
  const double gain = partition.gain(expert, to) + (back >= 0 ? partition.gain(back, from) : 0);
  const double merit = gain >= 0 ? gain * less : gain / less;
  if (merit > best.merit) {
    best = {expert, to, back, merit};
  }
}

/// Of one node's experts.
Relief cheapest_relief(const Partition& partition, const NodeLimits& limits, int node) {
  Relief best;
  for (int expert = 0; expert < partition.experts(); ++expert) {
    if (partition.node_of(expert) != node) {
      continue;
    }
    for (int back = 0; back < partition.experts(); ++back) {
      if (partition.node_of(back) != node) {
        consider(partition, limits, expert, partition.node_of(back), back, best);
      }
    }
    for (int to = 0; to < partition.nodes(); ++to) {
      if (to != node && partition.node_size(to) < limits.slots[as_index(to)]) {
        consider(partition, limits, expert, to, -1, best);
      }
    }
  }
  return best;
}

/// Of the most overloaded node whose overload can be lowered.
Relief cheapest_relief(const Partition& partition, const NodeLimits& limits) {
  std::vector<std::pair<double, int>> overloaded;
  for (int node = 0; node < partition.nodes(); ++node) {
    const double over = limits.overload(node, partition.node_load(node));
    if (over > 0) {
      overloaded.emplace_back(-over, node);
    }
  }
  std::ranges::sort(overloaded);
  for (const auto& [over, node] : overloaded) {
    if (const Relief relief = cheapest_relief(partition, limits, node); relief.expert >= 0) {
      return relief;
    }
  }
  return {};
}

}  // namespace

double overload(const Partition& partition, const NodeLimits& limits) {
  double sum = 0;
  for (int node = 0; node < partition.nodes(); ++node) {
    sum += limits.overload(node, partition.node_load(node));
  }
  return sum;
}

bool repair(Partition& partition, const NodeLimits& limits) {
  Search search(partition, limits, 0);
  while (overload(partition, limits) > 0) {
    const Relief relief = cheapest_relief(partition, limits);
    if (relief.expert < 0) {
      return false;
    }
    const int from = partition.node_of(relief.expert);
    search.move(relief.expert, relief.node);
    if (relief.back >= 0) {
      search.move(relief.back, from);
    }
  }
  return true;
}

void improve(Partition& partition, const NodeLimits& limits, const SearchOptions& options) {
  Search search(partition, limits, options.seed);
  const std::int64_t end = search.work() + options.work;
  while (search.pass(end)) {
  }
  std::vector<int> best = partition.assignment();
  double least = partition.cost();
  for (std::int64_t before = -1; search.work() < end && partition.work() > before;) {
    before = partition.work();  // where nothing can be moved there is nothing to do
    search.shake(search.random_count(2, std::max(3, partition.experts() / 16)));
    while (search.pass(end)) {
    }
    if (partition.cost() < least - kLeastGain) {
      least = partition.cost();
      best = partition.assignment();
    } else {
      for (int expert = 0; expert < partition.experts(); ++expert) {
        if (partition.node_of(expert) != best[as_index(expert)]) {
          search.move(expert, best[as_index(expert)]);
        }
      }
    }
  }
}

}  // namespace cartesian
