#pragma once
// Plans of a layer compared by the predicted step.

#include <algorithm>
#include <limits>
#include <utility>

#include "planner/layer_packing.h"

namespace cartesian {

struct LayerPlan {
  ExpertRanks ranks;
  bool scored = true;  ///< pivot scores shorten the step
};

/// With pivot scores and without: scores tell where B's experts are, but draw pivots that would be
/// as good elsewhere to few nodes.
struct TimedPlan {
  ExpertRanks ranks = {};
  double scored_s = std::numeric_limits<double>::infinity();
  double unscored_s = std::numeric_limits<double>::infinity();
  double unscored_pays = 0.03;  ///< of a step, that it must be shorter by to do without

  bool scored() const { return unscored_s >= (1 - unscored_pays) * scored_s; }
  double least() const { return std::min(scored_s, unscored_s); }
  double seconds() const { return scored() ? scored_s : unscored_s; }
};

class FastestPlan {
 public:
  /// Whether it is taken: if it pays by so large a share, and the best without scores is no faster.
  bool consider(TimedPlan plan, double pays) {
    const double seconds = plan.seconds();
    if (any_ && seconds >= (1 - pays) * best_.seconds()) {
      return false;
    }
    if (any_ && seconds >= (1 - pays) * best_.unscored_s) {
      best_.unscored_pays = 0;
      return false;
    }
    best_ = std::move(plan);
    any_ = true;
    return true;
  }

  LayerPlan take() && {
    const bool scored = best_.scored();
    return {.ranks = std::move(best_.ranks), .scored = scored};
  }

 private:
  TimedPlan best_;
  bool any_ = false;
};

}  // namespace cartesian
