#pragma once
// ExchangeCase: the tokens, choices and experts that a measured exchange has, the same on every
// rank, and what it must yield, in closed form. Immutable, thread-safe.
//
// Experts are stand-ins: expert e of group g multiplies a row by expert_slope(g, e), and its gate
// by that, so that a sub-layer makes x into x (1 + sum of gate * slope).

#include <array>
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "base/placement.h"
#include "base/routing_trace.h"
#include "base/topology.h"
#include "planner/layer_trace.h"
#include "planner/token_router.h"

namespace cartesian {

inline float expert_slope(int group, int expert) {
  return static_cast<float>(1 + (expert + group) % 3) / 4;
}
/// Of the row of a token at home, and of the loss by what comes back to it. bfloat16 has them.
inline float token_value(std::int64_t token, std::int64_t column) {
  return static_cast<float>((token * 31 + column * 7) % 41 - 20);
}
inline float gradient_value(std::int64_t token, std::int64_t column) {
  return static_cast<float>((token * 11 + column * 5) % 7 - 3);
}

struct ExchangeCase {
  Topology topology;
  Placement placement;
  int layer = 0;            ///< among the placement's
  RoutingTrace routing;     ///< of that layer alone: [ranks * tokens], rank by rank
  std::int64_t tokens = 0;  ///< at home on each rank
  std::int64_t hidden = 1;
  DType dtype = DType::f32;
  Flow flow = Flow::pivot;
  PivotRule rule = PivotRule::speculative;
  int chunks = 1;

  int groups() const { return placement.shape().groups; }
  std::int64_t all_tokens() const { return routing.tokens; }
  std::int64_t first_token(int rank) const { return rank * tokens; }
  const RoutingTrace::SubLayer& choices(int group) const {
    return routing.sub_layers[static_cast<std::size_t>(group)];
  }
  std::span<const std::int16_t> chosen(int group, std::int64_t token) const;
  std::span<const float> gates(int group, std::int64_t token) const;
  /// What a sub-layer multiplies the token's row by.
  double slope(int group, std::int64_t token) const;
};

/// A case's routing: the tokens of one layer of `trace` one after the other, from the first again
/// where they do not suffice, `tokens` at home on each of `ranks`. REQUIRES: the trace has tokens,
/// or none are wanted.
RoutingTrace routing_of_layer(const RoutingTrace& trace, int layer, std::int64_t tokens, int ranks);

/// Rows that tokens need at ranks, by group: one for every rank that a token's experts are on, its
/// home's own among them, replicas being chosen from home. What algorithm bandwidth is counted by.
std::array<std::int64_t, 2> rows_needed(const ExchangeCase& measured);

}  // namespace cartesian
