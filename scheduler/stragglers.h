#pragma once
// Stragglers: the ranks that compute for longer than the others, and the nodes whose link keeps the
// others waiting. Pure functions of what a step of the job is like; straggler_watch.h finds out.

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/step_report.h"

namespace cartesian {

/// Seconds that a rank waits for a rank of another node: means over such pairs.
struct NodeWaits {
  double of_it = 0;      ///< the node's ranks for others
  double for_it = 0;     ///< others for the node's ranks
  double elsewhere = 0;  ///< others for others
};

/// Of one step, or of one that stands for several.
struct StragglerEvidence {
  double step_s = 0;  ///< mean over ranks
  /// [ranks]: of work that tokens at home cost, and so not that of experts, of which a rank gets
  /// what the routing sends it.
  std::vector<double> compute_s;
  std::vector<double> tokens;    ///< [ranks] at home
  std::vector<NodeWaits> nodes;  ///< [nodes]
};

struct StragglerLimits {
  double rank_factor = 1.3;  ///< compute over the median rank's
  double link_factor = 3;    ///< waits that a node has part in, over those elsewhere
  /// Of a step, what a straggler costs must last: less is not worth a word.
  double least_share = 0.1;
  /// And seconds: a thread may wait so long for a processor that others use, too.
  double least_s = 0.004;
};

struct Straggler {
  enum class Kind : std::uint8_t { rank, link };
  Kind kind = Kind::rank;
  int number = 0;     ///< of the rank or of the node
  double factor = 0;  ///< by which it is beyond the others
  double step_s = 0;  ///< seconds a step: what the rank computes, or others wait for the node
  bool operator==(const Straggler&) const = default;
};

/// Worst first, ranks before links. A rank is compared with those that have as many tokens or more.
/// Who is merely late is waited for, and waits for nobody; a slow link keeps both its ends waiting:
/// it is the lesser of for_it and of_it that counts. It takes three nodes to tell whose link it is,
/// and the waits of a node with a slow rank are that rank's. REQUIRES: the sizes are the shape's.
std::vector<Straggler> find_stragglers(const JobShape& shape, const StragglerEvidence& evidence,
                                       const StragglerLimits& limits = {});

/// One sentence for an operator.
std::string describe(const Straggler& straggler, const JobShape& shape);
/// What to tell the operator who was told of `before`: a sentence for each that has come, and for
/// each that is gone; if `blind`, because reports that would tell of it are missing.
std::vector<std::string> straggler_news(const std::vector<Straggler>& before,
                                        const std::vector<Straggler>& now, const JobShape& shape,
                                        bool blind = false);

}  // namespace cartesian
