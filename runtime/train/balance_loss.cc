#include "runtime/train/balance_loss.h"

#include <numeric>

namespace cartesian {

BalanceLoss balance_loss(Arena& arena, std::span<const RouterLoad> loads, double tokens,
                         std::span<const double> scales) {
  BalanceLoss result;
  for (std::size_t s = 0; s < loads.size(); ++s) {
    const RouterLoad& load = loads[s];
    const double scale = scales[s % scales.size()];
    const auto experts = static_cast<double>(load.counts.size());
    const double choices = std::accumulate(load.counts.begin(), load.counts.end(), 0.0);
    const Tensor gradient =
        arena.tensor(DType::f32, {static_cast<std::int64_t>(load.counts.size())});
    for (std::size_t i = 0; i < load.counts.size(); ++i) {
      const double share = choices > 0 ? load.counts[i] / choices : 0;
      const double per_token = tokens > 0 ? experts * share / tokens : 0;
      result.value += per_token * load.probabilities[i];
      gradient.data<float>()[i] = static_cast<float>(scale * per_token);
    }
    result.dprobability.push_back(gradient);
  }
  return result;
}

BalanceLoss balance_loss(Arena& arena, std::span<const RouterLoad> loads, double tokens,
                         double scale) {
  return balance_loss(arena, loads, tokens, std::span(&scale, 1));
}

}  // namespace cartesian
