#include "planner/graph_search.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/index.h"
#include "planner/dice.h"

namespace cartesian {

namespace {

constexpr std::int64_t kLooksPerWork = 128;  // pairs that take as long as one token of a Partition
constexpr float kLeastGain = 1e-3F;
constexpr int kShare = 32;  // of the experts are shaken

/// Experts that move as one.
struct Unit {
  std::vector<int> experts;
  Loads load = {};
  int node = 0;
  int size() const { return static_cast<int>(experts.size()); }
};

/// Units on nodes, and what every unit's neighbours on every node weigh.
class UnitGraph {
 public:
  UnitGraph(const NodeLimits& limits, std::vector<Unit> units, std::vector<float> weights)
      : limits_(limits),
        units_(std::move(units)),
        weights_(std::move(weights)),
        affinity_(limits.slots.size() * units_.size()),
        inside_(units_.size()),
        load_(limits.slots.size()),
        size_(limits.slots.size()) {
    for (std::size_t u = 0; u < units_.size(); ++u) {
      load_[as_index(units_[u].node)] += units_[u].load;
      size_[as_index(units_[u].node)] += units_[u].size();
      add_affinity(u, units_[u].node, 1);
    }
    for (std::size_t u = 0; u < units_.size(); ++u) {
      inside_[u] = affinity(u, units_[u].node);
    }
  }

  std::size_t count() const { return units_.size(); }
  std::int64_t looks() const { return looks_; }

  /// Twice the weight of pairs on one node.
  double together() const { return std::reduce(inside_.begin(), inside_.end(), 0.0); }

  /// Every unit's best swap or move, in random order. False if there is none.
  bool pass(Dice& dice) {
    std::vector<std::size_t> order(count());
    std::iota(order.begin(), order.end(), std::size_t{0});
    dice.shuffle(order);
    bool better = false;
    for (const std::size_t u : order) {
      better = improve_one(u) || better;
    }
    looks_ += static_cast<std::int64_t>(count() * count());
    return better;
  }

  void shake(Dice& dice, int swaps) {
    for (int tries = 0; tries < 50 * swaps && swaps > 0; ++tries) {
      const auto u = as_index(dice.below(static_cast<int>(count())));
      const auto v = as_index(dice.below(static_cast<int>(count())));
      if (units_[u].node != units_[v].node && fits(u, units_[v].node, &units_[v])) {
        swap(u, v);
        --swaps;
      }
    }
  }

  /// Units of a node merged two by two, those that weigh most together first.
  UnitGraph merged(Dice& dice) const {
    std::vector<std::size_t> order(count());
    std::iota(order.begin(), order.end(), std::size_t{0});
    dice.shuffle(order);
    std::vector<int> merged_into(count(), -1);
    std::vector<Unit> units;
    for (const std::size_t u : order) {
      if (merged_into[u] >= 0) {
        continue;
      }
      merged_into[u] = static_cast<int>(units.size());
      units.push_back(units_[u]);
      std::size_t best = u;
      for (std::size_t v = 0; v < count(); ++v) {
        if (merged_into[v] < 0 && units_[v].node == units_[u].node &&
            (best == u || weight(u, v) > weight(u, best))) {
          best = v;
        }
      }
      if (best != u) {
        merged_into[best] = merged_into[u];
        Unit& pair = units.back();
        pair.load += units_[best].load;
        pair.experts.insert(pair.experts.end(), units_[best].experts.begin(),
                            units_[best].experts.end());
      }
    }
    std::vector<float> weights(units.size() * units.size());
    for (std::size_t u = 0; u < count(); ++u) {
      for (std::size_t v = 0; v < count(); ++v) {
        if (merged_into[u] != merged_into[v]) {
          weights[as_index(merged_into[u]) * units.size() + as_index(merged_into[v])] +=
              weight(u, v);
        }
      }
    }
    return {limits_, std::move(units), std::move(weights)};
  }

  /// [experts] nodes.
  std::vector<int> assignment(std::size_t experts) const {
    std::vector<int> nodes(experts);
    for (const Unit& unit : units_) {
      for (const int expert : unit.experts) {
        nodes[as_index(expert)] = unit.node;
      }
    }
    return nodes;
  }
  void assign(const std::vector<int>& nodes) {
    for (std::size_t u = 0; u < count(); ++u) {
      move(u, nodes[as_index(units_[u].experts[0])]);
    }
  }

 private:
  float weight(std::size_t u, std::size_t v) const { return weights_[u * count() + v]; }
  float affinity(std::size_t u, int node) const { return affinity_[as_index(node) * count() + u]; }

  void add_affinity(std::size_t u, int node, float sign) {
    float* to = affinity_.data() + as_index(node) * count();
    const float* from = weights_.data() + u * count();
    for (std::size_t v = 0; v < count(); ++v) {
      to[v] += sign * from[v];
    }
  }

  /// Whether `u` may go to `node` while `back`, if any, comes from there.
  bool fits(std::size_t u, int node, const Unit* back) const {
    const Unit& unit = units_[u];
    const Loads more = unit.load - (back != nullptr ? back->load : Loads{});
    const int larger = unit.size() - (back != nullptr ? back->size() : 0);
    return within(node, more, larger) && within(unit.node, Loads{} - more, -larger);
  }
  bool within(int node, const Loads& more, int larger) const {
    const std::size_t n = as_index(node);
    return (larger <= 0 || size_[n] + larger <= limits_.slots[n]) &&
           limits_.allow(node, load_[n], more);
  }

  bool improve_one(std::size_t u) {
    const int from = units_[u].node;
    const float* at_from = affinity_.data() + as_index(from) * count();
    float best = kLeastGain;
    int to = -1;
    std::size_t partner = count();
    for (int node = 0; node < static_cast<int>(size_.size()); ++node) {
      const float gain = affinity(u, node) - inside_[u];
      if (node != from && gain > best && fits(u, node, nullptr)) {
        best = gain;
        to = node;
      }
    }
    for (std::size_t v = 0; v < count(); ++v) {
      const float gain =
          affinity(u, units_[v].node) - inside_[u] + at_from[v] - inside_[v] - 2 * weight(u, v);
      if (gain > best && units_[v].node != from && fits(u, units_[v].node, &units_[v])) {
        best = gain;
        to = units_[v].node;
        partner = v;
      }
    }
    if (partner < count()) {
      swap(u, partner);
    } else if (to >= 0) {
      move(u, to);
    }
    return to >= 0;
  }

  void move(std::size_t u, int to) {
    Unit& unit = units_[u];
    const int from = unit.node;
    if (from == to) {
      return;
    }
    add_affinity(u, from, -1);
    add_affinity(u, to, 1);
    load_[as_index(from)] = load_[as_index(from)] - unit.load;
    load_[as_index(to)] += unit.load;
    size_[as_index(from)] -= unit.size();
    size_[as_index(to)] += unit.size();
    unit.node = to;
    for (std::size_t v = 0; v < count(); ++v) {
      const int node = units_[v].node;
      if (node == from) {
        inside_[v] -= weight(u, v);
      } else if (node == to) {
        inside_[v] += weight(u, v);
      }
    }
    inside_[u] = affinity(u, to);
  }

  void swap(std::size_t u, std::size_t v) {
    const int node = units_[u].node;
    move(u, units_[v].node);
    move(v, node);
  }

  const NodeLimits& limits_;
  std::vector<Unit> units_;
  std::vector<float> weights_;   // [units][units], nothing on the diagonal
  std::vector<float> affinity_;  // [nodes][units] weight of a unit's neighbours there
  std::vector<float> inside_;    // [units] the same, on its own node
  std::vector<Loads> load_;      // [nodes]
  std::vector<int> size_;        // [nodes] experts
  std::int64_t looks_ = 0;
};

class PairSearch {
 public:
  PairSearch(UnitGraph& experts, const NodeLimits& limits, std::uint64_t seed, std::int64_t looks)
      : experts_(experts), nodes_(limits.slots.size()), dice_(seed), left_(looks) {}

  /// Returns the looks that are left; negative if they did not do.
  std::int64_t run() {
    descend();
    std::vector<int> best = experts_.assignment(experts_.count());
    double most = experts_.together();
    for (int shaken = std::max(2, static_cast<int>(experts_.count()) / kShare); left_ > 0;) {
      const std::int64_t before = left_;
      experts_.shake(dice_, shaken);
      descend();
      if (experts_.together() > most + kLeastGain) {
        best = experts_.assignment(experts_.count());
        most = experts_.together();
      } else {
        experts_.assign(best);
      }
      if (left_ == before) {
        break;
      }
    }
    return left_;
  }

 private:
  /// Single experts, then ever larger units, then single experts again.
  void descend() {
    settle(experts_);
    coarsen(experts_);
    settle(experts_);
  }

  void coarsen(UnitGraph& graph) {
    if (graph.count() < 4 * nodes_ || left_ <= 0) {
      return;
    }
    UnitGraph units = graph.merged(dice_);
    if (units.count() == graph.count()) {
      return;
    }
    coarsen(units);
    settle(units);
    graph.assign(units.assignment(experts_.count()));
  }

  void settle(UnitGraph& graph) {
    const std::int64_t before = graph.looks();
    while (graph.pass(dice_) && left_ > graph.looks() - before) {
    }
    left_ -= graph.looks() - before;
  }

  UnitGraph& experts_;
  std::size_t nodes_;
  Dice dice_;
  std::int64_t left_;  // looks
};

}  // namespace

std::vector<int> improve_pairs(const CoActivation& all, const PairWeights& weights,
                               const NodeLimits& limits, std::vector<int> start, std::uint64_t seed,
                               std::int64_t& work) {
  check(static_cast<int>(start.size()) == all.experts(), "a node for every expert");
  if (limits.slots.size() <= 1) {  // nothing can move
    --work;
    return start;
  }
  std::vector<Unit> units;
  std::vector<float> pairs;
  for (int a = 0; a < all.experts(); ++a) {
    units.push_back({{a}, all.loads(a), start[as_index(a)]});
    for (int b = 0; b < all.experts(); ++b) {
      const double weight = all.same_group(a, b) ? weights.same : weights.cross;
      pairs.push_back(
          a == b ? 0.0F : static_cast<float>(weight * static_cast<double>(all.together(a, b))));
    }
  }
  UnitGraph experts(limits, std::move(units), std::move(pairs));
  work = PairSearch(experts, limits, seed, work * kLooksPerWork).run() / kLooksPerWork;
  return experts.assignment(start.size());
}

}  // namespace cartesian
