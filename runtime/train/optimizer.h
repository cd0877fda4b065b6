#pragma once
// Optimizer: AdamW over a rank's parameters with warm-up and a cosine.

#include <vector>

#include "base/context.h"
#include "runtime/config/config.h"
#include "runtime/model/parameters.h"

namespace cartesian {

/// The learning rate of step `step` (0 is the first): linear warm-up to the peak, then a cosine to
/// the minimum at `steps`.
double learning_rate(const TrainConfig& config, std::int64_t step);

class Optimizer {
 public:
  /// `parameters` must outlive this; their layout may change between updates.
  Optimizer(const TrainConfig& config, ParameterStore& parameters)
      : config_(config), parameters_(parameters) {}

  /// One update, with the gradients times `gradient_scale`, of the weights whose moments this rank
  /// has. `step` counts from 0.
  void update(const Context& context, std::int64_t step, double gradient_scale);

 private:
  /// Neighbouring tensors that are treated alike.
  struct Range {
    ElementRange elements;
    bool decay = false;
  };

  /// All elements whose moments this rank has.
  std::vector<Range> ranges() const;

  TrainConfig config_;
  ParameterStore& parameters_;
};

}  // namespace cartesian
