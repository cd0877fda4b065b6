#pragma once
// CoActivation: how often one layer's tokens choose each expert, and each pair of experts together.
// Immutable, thread-safe.

#include <cstdint>
#include <vector>

#include "base/index.h"
#include "planner/layer_trace.h"
#include "planner/node_limits.h"

namespace cartesian {

/// Tokens' choices of each expert: [experts of A, then of B].
std::vector<std::int64_t> expert_loads(const LayerTrace& layer);

/// Experts of both groups are numbered through: A's, then B's.
class CoActivation {
 public:
  explicit CoActivation(const LayerTrace& layer);

  int groups() const { return static_cast<int>(loads_.size()) / experts_of_group_; }
  int experts() const { return static_cast<int>(loads_.size()); }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t load(int expert) const { return loads_[as_index(expert)]; }
  Loads loads(int expert) const {
    return Loads{}.add(group_of(expert), static_cast<double>(load(expert)));
  }
  const std::vector<std::int64_t>& loads() const { return loads_; }
  /// Tokens that choose both of two experts.
  std::int64_t together(int a, int b) const {
    return together_[as_index(a) * loads_.size() + as_index(b)];
  }
  int group_of(int expert) const { return expert < experts_of_group_ ? 0 : 1; }
  bool same_group(int a, int b) const { return group_of(a) == group_of(b); }
  /// (token, group) pairs with choices, and tokens with choices in both groups.
  std::int64_t choosing() const { return choosing_; }
  std::int64_t choosing_both() const { return choosing_both_; }
  /// Choices of tokens with choices in one group only.
  std::int64_t choices_alone() const { return choices_alone_; }
  /// Choices of one group in the mean over (token, group) pairs that have any.
  double choices() const;

 private:
  int experts_of_group_;
  std::int64_t tokens_;
  std::int64_t choosing_ = 0;
  std::int64_t choosing_both_ = 0;
  std::int64_t choices_alone_ = 0;
  std::vector<std::int64_t> loads_;     // [experts]
  std::vector<std::int32_t> together_;  // [experts][experts]
};

}  // namespace cartesian
