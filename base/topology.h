#pragma once
// Topology: which ranks share a node. Nodes are contiguous ranges of ranks only by convention of
// node_sizes; a bootstrap may find any grouping. Immutable, thread-safe.

#include <span>
#include <string>
#include <vector>

#include "base/check.h"

namespace cartesian {

class Topology {
 public:
  /// `node_of_rank[r]` is rank r's node, numbered 0, 1, ... without gaps in order of first
  /// appearance.
  explicit Topology(std::vector<int> node_of_rank);

  /// One node with `ranks` ranks.
  static Topology single_node(int ranks);
  /// Consecutive ranks: node i has sizes[i] of them. Throws ConfigError naming parallel.node_sizes
  /// if a size is below one or the sum is not `ranks`.
  static Topology from_node_sizes(std::span<const int> sizes, int ranks);
  /// Ranks with equal names (hosts) share a node.
  static Topology from_host_names(std::span<const std::string> host_of_rank);

  int ranks() const { return static_cast<int>(node_of_rank_.size()); }
  int nodes() const { return static_cast<int>(ranks_of_node_.size()); }
  int node(int rank) const {
    check(rank >= 0 && rank < ranks(), "rank out of range");
    return node_of_rank_[static_cast<std::size_t>(rank)];
  }
  /// Ascending.
  std::span<const int> ranks_of_node(int node) const;
  /// Position of `rank` in ranks_of_node(node(rank)).
  int local_index(int rank) const;
  /// The rank of `node` that receives, for that node, the tokens whose home is `home`:
  /// local_index(home) modulo its ranks.
  int rail(int node, int home) const;

 private:
  std::vector<int> node_of_rank_;
  std::vector<std::vector<int>> ranks_of_node_;
  std::vector<int> local_index_;
};

}  // namespace cartesian
