#pragma once
// ReplicaRoutes: how sampled tokens of one layer travel when experts are on sets of nodes: in which
// copies, and which replica serves which choice, as base/itinerary.h has it for ranks.

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "base/index.h"
#include "base/itinerary.h"
#include "planner/layer_trace.h"

namespace cartesian {

using NodeSet = std::uint64_t;  ///< bit n: node n
inline constexpr int kMostReplicaNodes = 64;
inline NodeSet node_bit(int node) { return NodeSet{1} << node; }

/// Immutable, thread-safe. Sets of nodes are [experts of A, then of B].
class ReplicaRoutes {
 public:
  struct Options {
    Flow flow = Flow::pivot;
    std::int64_t sample = 4096;  ///< tokens that are looked at, spread over the trace
    int homes = 8;  ///< of each token, if it is not known; with at least as many as nodes, all
  };
  struct Route {
    int copies = 0;
    int pivot = 0;  ///< node
    int rows = 0;   ///< copies, if every choice without a replica where it is needed had its own
  };

  /// `topology` must outlive this. Pivots are chosen by the layer's speculative choices, or by B's
  /// own if it has none. REQUIRES: at most kMostReplicaNodes nodes.
  ReplicaRoutes(const LayerTrace& layer, const Topology& topology, const Options& options);

  int tokens() const { return static_cast<int>(sampled_.size()); }
  int groups() const { return groups_; }
  int nodes() const { return topology_.nodes(); }
  /// Experts that a sampled token chooses in a group.
  std::span<const int> chosen(int i, int group) const { return list(i, group); }

  Route route(int i, int home, std::span<const NodeSet> nodes_of) const;

  /// Calls visit(home, share of the homes that go the same way).
  template <class Visit>
  void for_each_home(int i, std::span<const NodeSet> nodes_of, Visit visit) const {
    if (!home_.empty()) {
      visit(home_[as_index(i)], 1.0);
      return;
    }
    if (nodes() > options_.homes) {
      for (int home = 0; home < options_.homes; ++home) {
        const auto rank =
            static_cast<int>((sampled_[as_index(i)] * 7919 +
                              std::int64_t{home} * topology_.ranks() / options_.homes) %
                             topology_.ranks());
        visit(topology_.node(rank), 1.0 / options_.homes);
      }
      return;
    }
    NodeSet hosting = 0;
    for (int of = 0; of <= groups_; ++of) {
      for (const int expert : list(i, of)) {
        hosting |= nodes_of[as_index(expert)];
      }
    }
    double elsewhere = 1;  // homes that host none of its experts are all alike
    for (NodeSet rest = hosting; rest != 0; rest &= rest - 1) {
      const int home = std::countr_zero(rest);
      elsewhere -= home_share_[as_index(home)];
      visit(home, home_share_[as_index(home)]);
    }
    if (const int other = std::countr_one(hosting); other < nodes()) {
      visit(other, elsewhere);
    }
  }

  /// Calls visit(expert, node, share) for every choice and home, with the node that serves it.
  template <class Visit>
  void for_each_served(int i, std::span<const NodeSet> nodes_of, Visit visit) const {
    for_each_home(i, nodes_of, [&](int home, double share) {
      const int pivot = route(i, home, nodes_of).pivot;
      for (int group = 0; group < groups_; ++group) {
        const int origin = group == 0 ? home : pivot;
        const Forced forced = forced_nodes(list(i, group), origin, nodes_of);
        for (const int expert : list(i, group)) {
          const NodeSet there =
              serving(i, expert, nodes_of[as_index(expert)], forced.nodes, origin, home);
          visit(expert, std::countr_zero(there), share);
        }
      }
    });
  }

 private:
  struct Forced {
    NodeSet nodes;
    bool open;  // some choice has a replica elsewhere than at these nodes to choose from
  };

  /// Of A, of B, and what B is thought to be.
  std::span<const int> list(int i, int of) const {
    const std::size_t at = as_index(i) * 3 + as_index(of);
    return std::span(chosen_).subspan(as_index(first_[at]), as_index(first_[at + 1] - first_[at]));
  }
  static Forced forced_nodes(std::span<const int> experts, int origin,
                             std::span<const NodeSet> nodes_of);
  NodeSet serving(int i, int expert, NodeSet nodes, NodeSet forced, int origin, int home) const;
  NodeSet visited(int i, int of, int origin, int home, std::span<const NodeSet> nodes_of) const;
  int rows(int i, int group, int node, std::span<const NodeSet> nodes_of) const;

  const Topology& topology_;
  Options options_;
  int groups_;
  bool guessed_;                       // B's choices are predicted
  std::vector<double> home_share_;     // [nodes]
  std::vector<std::int64_t> sampled_;  // tokens
  std::vector<int> home_;              // [sampled] nodes; empty: all of them
  std::vector<int> first_;             // [sampled][3] into chosen_, and the end
  std::vector<int> chosen_;            // experts
};

}  // namespace cartesian
