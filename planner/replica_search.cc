#include "planner/replica_search.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <queue>
#include <tuple>

#include "base/index.h"
#include "planner/dice.h"

namespace cartesian {

namespace {

constexpr double kSmoothing = 0.3;
constexpr double kWarm = 1e-3;  // of all copies, that a change may cost more at first
constexpr double kCold = 5e-5;  // and in the end
constexpr int kTournament = 4;  // experts that are compared by affinity before one is tried
constexpr std::int64_t kLooksPerWork = 256;  // affinities that are added up as a token is looked at
constexpr std::int64_t kLooksPerTry = 256;

using Change = ReplicaCosts::Change;

class ReplicaSearch {
 public:
  ReplicaSearch(ReplicaCosts& costs, const CoActivation& all, std::uint64_t seed)
      : costs_(costs),
        all_(all),
        dice_(seed),
        affinity_(as_index(costs.nodes()) * as_index(costs.experts())) {}

  /// Of the costs, and of looking for what to try.
  std::int64_t work() const { return costs_.work() + looks_ / kLooksPerWork; }

  /// Until a whole round adds nothing, or the work is done.
  void fill(std::int64_t end) {
    while (fill_once(end)) {
    }
  }

  /// By simulated annealing: what costs more is taken, too, ever more seldom; the best is kept.
  void exchange_slots(std::int64_t amount) {
    const std::int64_t begin = work();
    const double copies = costs_.copies();
    std::vector<NodeSet> best = costs_.nodes_of();
    double saved = 0;
    double most = 0;
    add_up_affinity();
    while (work() < begin + amount) {
      looks_ += kLooksPerTry;
      const double done = static_cast<double>(work() - begin) / static_cast<double>(amount);
      const double warmth = copies * kWarm * std::pow(kCold / kWarm, done);
      const double loss = -warmth * std::log(1 - dice_.uniform());
      const int node = dice_.below(costs_.nodes());
      const int out = pick(node, true);
      const int in = pick(node, false);
      if (out >= 0 && in >= 0) {
        saved += try_exchange(node, out, in, loss);
      }
      if (saved > most) {
        most = saved;
        best = costs_.nodes_of();
      }
    }
    if (saved < most) {
      costs_.assign(std::move(best));
    }
  }

  /// Drops what does not save enough.
  void prune() {
    for (int expert = 0; expert < costs_.experts(); ++expert) {
      for (int node = 0; node < costs_.nodes(); ++node) {
        const NodeSet nodes = nodes_of(expert);
        if (holds(expert, node) && !std::has_single_bit(nodes)) {
          costs_.try_change(std::array<Change, 1>{{{expert, nodes & ~node_bit(node)}}});
        }
      }
    }
  }

 private:
  struct Candidate {
    double saving;
    int expert;
    int node;
    bool operator<(const Candidate& other) const {
      return std::tuple(saving, expert, node) < std::tuple(other.saving, other.expert, other.node);
    }
  };

  NodeSet nodes_of(int expert) const { return costs_.nodes_of()[as_index(expert)]; }
  bool holds(int expert, int node) const { return (nodes_of(expert) & node_bit(node)) != 0; }

  bool fill_once(std::int64_t end) {
    std::priority_queue<Candidate> queue;
    for (int expert = 0; expert < costs_.experts() && work() < end; ++expert) {
      looks_ += costs_.nodes();
      for (int node = 0; node < costs_.nodes(); ++node) {
        if (!holds(expert, node) && costs_.has_room(expert, node)) {
          queue.push({costs_.saving(expert, node), expert, node});
        }
      }
    }
    // Savings seldom grow as others come: what stays first after it is looked at again is the best.
    bool added = false;
    while (!queue.empty() && queue.top().saving > 0 && work() < end) {
      Candidate candidate = queue.top();
      queue.pop();
      ++looks_;
      if (!costs_.has_room(candidate.expert, candidate.node)) {
        continue;
      }
      candidate.saving = costs_.saving(candidate.expert, candidate.node);
      if (!queue.empty() && candidate.saving < queue.top().saving) {
        queue.push(candidate);
      } else if (candidate.saving > 0) {
        const NodeSet nodes = nodes_of(candidate.expert) | node_bit(candidate.node);
        added = costs_.try_change(std::array<Change, 1>{{{candidate.expert, nodes}}}).has_value() ||
                added;
      }
    }
    return added && work() < end;
  }

  /// How much tokens that choose `expert` have to do with the node, by what else is there.
  double affinity(int expert, int node) const {
    return affinity_[as_index(node) * as_index(costs_.experts()) + as_index(expert)];
  }

  void add_up_affinity() {
    std::ranges::fill(affinity_, 0.0);
    for (int expert = 0; expert < costs_.experts(); ++expert) {
      add_affinity(expert, nodes_of(expert), 1);
    }
  }

  /// Of what has to do with `expert`, which comes to the nodes or leaves them.
  void add_affinity(int expert, NodeSet nodes, double sign) {
    const auto experts = as_index(costs_.experts());
    for (NodeSet rest = nodes; rest != 0; rest &= rest - 1) {
      looks_ += costs_.experts();
      double* there = affinity_.data() + as_index(std::countr_zero(rest)) * experts;
      for (int other = 0; other < costs_.experts(); ++other) {
        const double weight = other == expert ? 0 : all_.same_group(expert, other) ? 2 : 1;
        there[other] += sign * weight * static_cast<double>(all_.together(expert, other));
      }
    }
  }

  /// Of a few experts that are on the node, or are not, the one that belongs there least, or most;
  /// -1 if it happens upon none.
  int pick(int node, bool held) {
    int best = -1;
    double most = 0;
    for (int i = 0; i < kTournament; ++i) {
      const int expert = dice_.below(costs_.experts());
      if (holds(expert, node) != held) {
        continue;
      }
      const double merit = affinity(expert, node) * (held ? -1 : 1);
      if (best < 0 || merit > most) {
        best = expert;
        most = merit;
      }
    }
    return best;
  }

  /// Returns what it saves, 0 if nothing was exchanged.
  double try_exchange(int node, int out, int in, double loss) {
    const NodeSet of_out = nodes_of(out);
    const NodeSet of_in = nodes_of(in);
    const NodeSet others = of_in & ~of_out;  // nodes where `out` may go in exchange
    if (!std::has_single_bit(of_out) && (others == 0 || dice_.below(2) == 0)) {
      return try_both({out, of_out & ~node_bit(node)}, {in, of_in | node_bit(node)}, loss);
    }
    if (others == 0) {
      return 0;
    }
    NodeSet left = others;
    for (int skip = dice_.below(std::popcount(others)); skip > 0; --skip) {
      left &= left - 1;
    }
    const NodeSet other = left & (~left + 1);
    return try_both({out, (of_out & ~node_bit(node)) | other},
                    {in, (of_in & ~other) | node_bit(node)}, loss);
  }

  double try_both(const Change& a, const Change& b, double loss) {
    const std::array<NodeSet, 2> before{nodes_of(a.expert), nodes_of(b.expert)};
    const auto saved = costs_.try_change(std::array<Change, 2>{{a, b}}, loss);
    if (!saved) {
      return 0;
    }
    add_affinity(a.expert, before[0] & ~a.nodes, -1);
    add_affinity(a.expert, a.nodes & ~before[0], 1);
    add_affinity(b.expert, before[1] & ~b.nodes, -1);
    add_affinity(b.expert, b.nodes & ~before[1], 1);
    return *saved;
  }

  ReplicaCosts& costs_;
  const CoActivation& all_;
  Dice dice_;
  std::vector<double> affinity_;  // [nodes][experts]
  std::int64_t looks_ = 0;
};

}  // namespace

std::int64_t place_replicas(ReplicaCosts& costs, const CoActivation& all,
                            const ReplicaSearchOptions& options) {
  ReplicaSearch search(costs, all, options.seed);
  const std::int64_t begin = search.work();
  const std::int64_t end = begin + options.work;
  costs.set_smoothing(kSmoothing);
  search.fill(end);
  search.exchange_slots((end - search.work()) / 4);
  costs.set_smoothing(0);
  search.exchange_slots(end - search.work());
  search.prune();
  return search.work() - begin;
}

}  // namespace cartesian
