#pragma once
// TokenRouter: the way of every token of one layer of a trace, by the functions that comm sends by
// (base/itinerary.h). What traffic is counted with, and steps are simulated with.

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/itinerary.h"
#include "base/messages.h"
#include "planner/layer_trace.h"

namespace cartesian {

/// What pivots are chosen by: B's true choices, which only an oracle knows; the trace's speculative
/// choices; the placement's pivot scores; the gates.
enum class PivotRule : std::uint8_t { oracle, speculative, table, gate };
std::string_view name_of(PivotRule rule);
/// The best rule that the trace has the evidence for, in all its layers: speculative, else table.
PivotRule best_rule(const RoutingTrace& trace);

/// Not thread-safe. What it is made of must outlive it.
class TokenRouter {
 public:
  /// `index` is the layer's number among the placement's. Throws ConfigError if the rule needs what
  /// the trace lacks. REQUIRES: `placement` is of this trace and topology, and for PivotRule::gate
  /// it has no pivot scores.
  TokenRouter(const LayerTrace& layer, int index, const Placement& placement,
              const Topology& topology, Flow flow, PivotRule rule);

  /// What the flow is in this layer: with one sub-layer `pivot` is `home`.
  Flow flow() const { return flow_; }
  /// The way of a token that lives at rank `home`; valid until the next call.
  TokenRoute route(std::int64_t token, int home);

 private:
  void read(std::int64_t token);
  void choose(int group, int origin, int home, std::span<const std::int32_t> experts,
              std::vector<std::int32_t>& ranks) const;

  const LayerTrace& layer_;
  int index_;
  const Placement& placement_;
  const Topology& topology_;
  Flow flow_;
  PivotRule rule_;
  std::int64_t token_ = -1;
  std::vector<std::int32_t> a_, b_, evidence_;  // of the token
  std::vector<std::int32_t> a_ranks_, b_ranks_;
};

}  // namespace cartesian
