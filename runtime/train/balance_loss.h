#pragma once
// The load-balancing loss of Switch Transformer and GShard, per sub-layer: N * sum_i f_i P_i, with
// f_i the share of routed (token, choice) pairs that chose expert i and P_i the mean router
// probability of i, over one global micro-batch.

#include <span>
#include <vector>

#include "runtime/model/router.h"

namespace cartesian {

struct BalanceLoss {
  /// Summed over sub-layers, without the coefficient.
  double value = 0;
  /// [sub-layer] [experts]: what each token's probabilities receive, times `scale`. From the arena.
  std::vector<Tensor> dprobability;
};

/// `loads` are sums over all ranks, [sub-layer]; `tokens` is how many tokens they come from.
/// `scales` are repeated: one for all, or one for A and one for B.
BalanceLoss balance_loss(Arena& arena, std::span<const RouterLoad> loads, double tokens,
                         std::span<const double> scales);
BalanceLoss balance_loss(Arena& arena, std::span<const RouterLoad> loads, double tokens,
                         double scale);

}  // namespace cartesian
