#pragma once
// Which rank of its node holds an expert: every rank within its slots, the most loaded one as
// little loaded as can be found, by A's experts, by B's and by both.

#include <span>
#include <vector>

#include "planner/balance.h"

namespace cartesian {

struct RankPacking {
  std::vector<int> rank_of;  ///< [slots] 0 to ranks - 1; -1: no rank is left without its expert
  double most_load = 0;      ///< of a rank for its share, both groups
};

struct RankPackingOptions {
  int ranks = 1;
  int slots = 1;  ///< of a rank
  /// [ranks] of the load that each should take, over a mean of 1; empty: 1 each. What is said of a
  /// rank's load is said of its load over this.
  std::span<const double> shares = {};
  std::span<const int> was;  ///< [slots] rank that would rather be kept, or -1; may be empty
  double enough = 0;         ///< load of a rank that need not be lowered
  double limit = 0;          ///< that is lowered to before loads of A or B alone are; 0: none
};

/// Heaviest first to the least loaded rank with a free slot and no replica of the same expert, then
/// swaps while they lower the most loaded ranks; begun from where slots were, if that will do.
/// Groups work one after the other, so what is lowered is the largest load by A's experts and the
/// largest by B's, and the largest of both. REQUIRES: the node's slots fit its ranks'.
RankPacking pack_ranks(std::span<const Slot> node, const RankPackingOptions& options);

}  // namespace cartesian
