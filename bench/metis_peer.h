#pragma once
// A peer to measure against: METIS (Karypis and Kumar, 1998), which cuts a graph into parts of
// equal size so that little weight lies between them. Shares no code with planner/'s search.

#include "planner/partition.h"

namespace cartesian::bench {

/// Whether this build has it.
bool has_metis();

struct MetisOptions {
  int slots = 0;  ///< experts on a node
  int tries = 8;  ///< seeds of each of its two ways: k-way, and bisections
  /// Weights of edges between A and B, over those within, that are tried. Two experts of one
  /// sub-layer on a node save a token nearly two copies, one of A and one of B a single copy, and
  /// only once however many pairs meet.
  std::vector<double> between{1};
};

/// Leaves `partition` with the cheapest, by its own exact cost, of all that was tried. Vertices are
/// the experts of A and B, an edge's weight is the number of tokens that choose both. Parts that
/// came out too large are brought down to the slots by the moves that cost least. METIS does not
/// look at loads. REQUIRES: has_metis(); the slots hold the experts.
void cut_by_metis(Partition& partition, const MetisOptions& options);

}  // namespace cartesian::bench
