#pragma once
// Itinerary: where one token's copies go, as a pure function of its choices, the placement and the
// flow. The planner predicts with it and comm sends by it, so what is predicted is what is sent.
// Thread-safe.

#include <cstdint>
#include <span>
#include <string_view>

#include "base/placement.h"
#include "base/topology.h"

namespace cartesian {

/// How tokens travel. `flat`: one row per (token, choice) straight to the expert's rank and back;
/// the pivot is home.
enum class Flow : std::uint8_t { flat };

/// "flat".
std::string_view name_of(Flow flow);

/// Where a sub-layer's choices of one token are evaluated.
struct TokenChoices {
  int layer = 0;  ///< MoE layer
  int group = 0;  ///< 0 = A, 1 = B
  int home = 0;   ///< rank where the token's sequence lives
  std::int64_t token =
      0;  ///< global token index: sequence of the micro-batch times length plus position
  std::span<const std::int32_t> experts;  ///< chosen experts; negative entries are skipped
};

/// Writes to ranks[i] the rank whose replica serves experts[i] (-1 where the choice is negative). A
/// replica on `home` is preferred, then one on home's node, then one on a node that the token
/// visits anyway for a choice with a single possible node, then one by a hash of (token, expert).
/// REQUIRES: ranks.size() == choices.experts.size().
void choose_replicas(const TokenChoices& choices, const Placement& placement,
                     const Topology& topology, std::span<std::int32_t> ranks);

/// The rank at which A's outputs of a token are summed and router B is evaluated.
int pivot_rank(Flow flow, int home);
/// The rank that adds the residual and the shared expert of the second sub-layer.
int finisher_rank(Flow flow, int home);

}  // namespace cartesian
