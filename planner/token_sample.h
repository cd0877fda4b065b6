#pragma once
// TokenSample: some tokens of a layer's trace, evenly over it, for what need not look at all.

#include <vector>

#include "planner/layer_trace.h"

namespace cartesian {

/// Owns what its layer views. Immutable, thread-safe.
class TokenSample {
 public:
  /// At most `count` tokens; without gates and homes.
  TokenSample(const LayerTrace& layer, std::int64_t count);
  TokenSample(const TokenSample&) = delete;
  TokenSample& operator=(const TokenSample&) = delete;

  const LayerTrace& layer() const { return layer_; }

 private:
  LayerTrace layer_;
  std::vector<std::vector<std::int16_t>> ids_;  // [groups]
  std::vector<std::vector<float>> gates_;       // [groups]
  std::vector<std::int16_t> speculative_;
  std::vector<std::int32_t> home_;
};

}  // namespace cartesian
