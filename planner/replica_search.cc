#include "planner/replica_search.h"

#include <array>
#include <bit>
#include <queue>

#include "base/index.h"
#include "base/random.h"

namespace cartesian {

namespace {

constexpr double kSmoothing = 0.3;
constexpr int kTournament = 4;  // experts that are compared by affinity before one is tried

using Change = ReplicaCosts::Change;

class ReplicaSearch {
 public:
  ReplicaSearch(ReplicaCosts& costs, const Partition& partition, const ReplicaOptions& options)
      : costs_(costs),
        partition_(partition),
        options_(options),
        key_(random_key(options.seed, "replica search")) {}

  /// Until a whole round adds nothing.
  void fill() {
    while (fill_once()) {
    }
  }

  void exchange_slots(std::int64_t work) {
    const std::int64_t end = costs_.work() + work;
    for (std::int64_t tries = 0; costs_.work() < end && tries < work; ++tries) {
      const int node = below(costs_.nodes());
      const int out = pick(node, true);
      const int in = pick(node, false);
      if (out >= 0 && in >= 0) {
        try_exchange(node, out, in);
      }
    }
  }

  /// Drops what does not save enough.
  void prune() {
    for (int expert = 0; expert < costs_.experts(); ++expert) {
      for (int node = 0; node < costs_.nodes(); ++node) {
        const NodeSet nodes = nodes_of(expert);
        if (holds(expert, node) && !std::has_single_bit(nodes)) {
          costs_.try_change(std::array<Change, 1>{{{expert, nodes & ~node_bit(node)}}},
                            -options_.least_saving);
        }
      }
    }
  }

 private:
  struct Candidate {
    double saving;
    int expert;
    int node;
    bool operator<(const Candidate& other) const { return saving < other.saving; }
  };

  NodeSet nodes_of(int expert) const { return costs_.nodes_of()[as_index(expert)]; }
  bool holds(int expert, int node) const { return (nodes_of(expert) & node_bit(node)) != 0; }
  int below(int count) {
    return static_cast<int>(random_bits(key_, next_++) % static_cast<std::uint64_t>(count));
  }

  bool fill_once() {
    std::priority_queue<Candidate> queue;
    for (int expert = 0; expert < costs_.experts(); ++expert) {
      for (int node = 0; node < costs_.nodes(); ++node) {
        if (!holds(expert, node) && costs_.has_room(expert, node)) {
          queue.push({costs_.saving(expert, node), expert, node});
        }
      }
    }
    // Savings seldom grow as others come: what stays first after it is looked at again is the best.
    bool added = false;
    while (!queue.empty() && queue.top().saving > options_.least_saving) {
      Candidate candidate = queue.top();
      queue.pop();
      if (!costs_.has_room(candidate.expert, candidate.node)) {
        continue;
      }
      candidate.saving = costs_.saving(candidate.expert, candidate.node);
      if (!queue.empty() && candidate.saving < queue.top().saving) {
        queue.push(candidate);
      } else if (candidate.saving > options_.least_saving) {
        const NodeSet nodes = nodes_of(candidate.expert) | node_bit(candidate.node);
        added = costs_.try_change(std::array<Change, 1>{{{candidate.expert, nodes}}}, 0) || added;
      }
    }
    return added;
  }

  /// How much tokens that choose `expert` have to do with the node, by what else is there.
  double affinity(int expert, int node) const {
    double sum = 0;
    for (int other = 0; other < costs_.experts(); ++other) {
      if (other != expert && holds(other, node)) {
        const double weight = partition_.same_group(expert, other) ? 2 : partition_.costs().meet;
        sum += weight * static_cast<double>(partition_.together(expert, other));
      }
    }
    return sum;
  }

  /// Of a few experts that are on the node, or are not, the one that belongs there least, or most;
  /// -1 if it happens upon none.
  int pick(int node, bool held) {
    int best = -1;
    double most = 0;
    for (int i = 0; i < kTournament; ++i) {
      const int expert = below(costs_.experts());
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

  void try_exchange(int node, int out, int in) {
    const NodeSet of_out = nodes_of(out);
    const NodeSet of_in = nodes_of(in);
    const NodeSet others = of_in & ~of_out;  // nodes where `out` may go in exchange
    if (!std::has_single_bit(of_out) && (others == 0 || below(2) == 0)) {
      costs_.try_change(
          std::array<Change, 2>{{{out, of_out & ~node_bit(node)}, {in, of_in | node_bit(node)}}},
          0);
    } else if (others != 0) {
      NodeSet left = others;
      for (int skip = below(std::popcount(others)); skip > 0; --skip) {
        left &= left - 1;
      }
      const NodeSet other = left & (~left + 1);
      costs_.try_change(std::array<Change, 2>{{{out, (of_out & ~node_bit(node)) | other},
                                               {in, (of_in & ~other) | node_bit(node)}}},
                        0);
    }
  }

  ReplicaCosts& costs_;
  const Partition& partition_;
  const ReplicaOptions& options_;
  std::uint64_t key_;
  std::uint64_t next_ = 0;
};

}  // namespace

void place_replicas(ReplicaCosts& costs, const Partition& partition,
                    const ReplicaOptions& options) {
  ReplicaSearch search(costs, partition, options);
  const std::int64_t end = costs.work() + options.work;
  costs.set_smoothing(kSmoothing);
  search.fill();
  search.exchange_slots((end - costs.work()) / 2);
  costs.set_smoothing(0);
  search.exchange_slots(end - costs.work());
  search.prune();
}

}  // namespace cartesian
