#pragma once
// Itinerary: where one token's copies go, as pure functions of its choices, the placement and the
// flow. The planner predicts with them and comm sends by them, so what is predicted is what is
// sent. Thread-safe.
//
// A token lives at its home. Its A experts are chosen there; their outputs meet at the pivot, where
// B is routed and dispatched from; B's outputs return to home. On every other node that it visits
// it has one rank, its rail (Topology::rail()).

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/placement.h"
#include "base/topology.h"

namespace cartesian {

/// How tokens travel. `flat`: one row per (token, choice) straight to the expert's rank and back,
/// the pivot is home. `home`: one copy per node, summed there before it returns; the pivot is home.
/// `pivot`: the same, and the pivot may be a node of A's experts.
enum class Flow : std::uint8_t { flat, home, pivot };

std::string_view name_of(Flow flow);
/// Nothing if `name` is none of "flat", "home", "pivot".
std::optional<Flow> parse_flow(std::string_view name);

/// A sub-layer's choices of one token.
struct TokenChoices {
  int layer = 0;           ///< MoE layer
  int group = 0;           ///< 0 = A, 1 = B
  int origin = -1;         ///< rank that the token is sent from
  int home = -1;           ///< rank where its sequence lives, to which B's outputs return
  std::int64_t token = 0;  ///< global token index: sequence of the micro-batch times length plus
                           ///< position
  std::span<const std::int32_t> experts;  ///< chosen experts; negative entries are skipped
};

/// Writes to ranks[i] the rank whose replica serves experts[i] (-1 where the choice is negative). A
/// replica on `origin` is preferred, then one on origin's node, then one on a node that the token
/// visits anyway for a choice with a single possible node, then one on home's node, then one by a
/// hash of (token, expert). REQUIRES: ranks.size() == choices.experts.size().
void choose_replicas(const TokenChoices& choices, const Placement& placement,
                     const Topology& topology, std::span<std::int32_t> ranks);

/// What the pivot of a token is chosen by.
struct PivotEvidence {
  std::span<const std::int32_t> a;        ///< A's choices
  std::span<const float> gates;           ///< of them; may be empty
  std::span<const std::int32_t> a_ranks;  ///< choose_replicas() of them
  std::span<const std::int32_t> b;        ///< what B will choose, as far as is known; may be empty
};

/// The rank at which A's outputs of a token are summed and router B is evaluated: home, or on
/// another node of A's experts its rail. Of these nodes the one with the fewest predicted copies,
/// by `b` or else by the placement's pivot scores; then the one with the larger pivot score, then
/// the larger gate, then home, then the lower node. In the other flows it is home.
int choose_pivot(Flow flow, int layer, int home, std::int64_t token, const PivotEvidence& evidence,
                 const Placement& placement, const Topology& topology);

/// The rank that adds the residual and the shared expert of B: home if it is the pivot or its node
/// hosts one of `b_ranks`, else the pivot if its node does, else the rail of the lowest node that
/// does; the pivot if there are none.
int choose_finisher(Flow flow, int home, int pivot, std::span<const std::int32_t> b_ranks,
                    const Topology& topology);

}  // namespace cartesian
