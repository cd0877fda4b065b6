#pragma once
// Stragglers: the ranks that compute for longer than the others, and the nodes whose link keeps the
// others waiting. Pure functions of sums over the same steps of all ranks.

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/step_report.h"

namespace cartesian {

struct StragglerEvidence {
  std::int64_t steps = 0;            ///< that the sums are over
  std::vector<double> compute_s;     ///< [ranks]: of their steps, but for waits
  std::vector<double> node_waits_s;  ///< [nodes, nodes]: ranks of a row's node for a column's
};

struct StragglerLimits {
  double rank_factor = 1.3;  ///< compute over the median rank's
  double link_factor = 2;    ///< waits that a node has part in, over those that it has not
  /// Of a step, what waits for one link must last: less is not worth a word.
  double least_share = 0.1;
};

struct Straggler {
  enum class Kind : std::uint8_t { rank, link };
  Kind kind = Kind::rank;
  int number = 0;     ///< of the rank or of the node
  double factor = 0;  ///< by which it is beyond the others
  double step_s = 0;  ///< seconds a step: what the rank computes, or what is waited for the link
  bool operator==(const Straggler&) const = default;
};

/// Worst first, ranks before links. A link is told from its peers by waits both ways, so it takes
/// three nodes; the waits of a node with a slow rank are that rank's. REQUIRES: the sizes are the
/// shape's.
std::vector<Straggler> find_stragglers(const JobShape& shape, const StragglerEvidence& evidence,
                                       const StragglerLimits& limits = {});

/// One sentence for an operator.
std::string describe(const Straggler& straggler, const JobShape& shape);

}  // namespace cartesian
