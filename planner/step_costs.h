#pragma once
// StepCosts: the predicted time of one layer's part of a training step, by which plans of it are
// compared: what `cartesian plan` prints (step_time.h), of the whole trace or of a part of it.

#include <cstdint>

#include "planner/layer_packing.h"
#include "planner/layer_trace.h"
#include "planner/step_time.h"
#include "planner/token_sample.h"

namespace cartesian {

/// Immutable, thread-safe.
class StepCosts {
 public:
  struct Options {
    Flow flow = Flow::pivot;  ///< `flat` as `home`
    RowSizes sizes;
    double tokens = 0;      ///< of a step
    bool replicas = false;  ///< there may be some, which takes longer to count
    std::int64_t work = 0;  ///< in units of Partition::work(), that one look may take
  };

  /// `layer` and `cluster` must outlive this.
  StepCosts(const LayerTrace& layer, const Cluster& cluster, const Options& options);

  /// Whether every token of the trace is looked at.
  bool whole() const { return whole_; }
  /// With replicas' gradients. `scored`: with pivot scores (plan.h).
  double seconds(const ExpertRanks& ranks, bool scored) const;

 private:
  const Cluster& cluster_;
  Options options_;
  TokenSample tokens_;
  bool whole_;
};

}  // namespace cartesian
