#pragma once
// Homes of the sequences of a batch: where they save the most copies, while every rank has as many
// as training would give it.

#include <cstdint>
#include <span>
#include <vector>

#include "planner/home_table.h"

namespace cartesian {

/// Sequences of a batch of `total` that are at home on `rank`, as training splits them: the floor
/// or the ceiling of the rank's share.
std::int64_t home_sequences(std::int64_t total, int rank, int ranks);

/// The home rank of each sequence, so that every rank has home_sequences() and the sum of the
/// scores is the largest that there is (to 2^-40 of the largest score). scores: [sequences, nodes],
/// as of sequence_scores(). Ranks of a node take turns. The same on any machine.
std::vector<int> assign_homes(std::span<const double> scores, const Topology& topology);

/// Copies between nodes per token, all layers, forward.
struct HomeSavings {
  double uniform = 0;   ///< with homes as they come: the mean over the ranks
  double by_table = 0;  ///< with homes by the table's scores
  double at_best = 0;   ///< by what every sequence would really save: no table can do better
};

/// For the text of a trace in batches of so many of its sequences, drawn at random eight times
/// over; what is left of a drawing is a batch, too. REQUIRES: the trace has text within the table's
/// vocabulary, `costs` are of it, the table's nodes are those of `topology`, and batch_sequences
/// >= 1.
HomeSavings measure_homes(const RoutingTrace& trace, const HomeCosts& costs, const HomeTable& table,
                          const Topology& topology, std::int64_t batch_sequences);

}  // namespace cartesian
