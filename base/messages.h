#pragma once
// The messages of one token, from its itinerary: which rank sends a row to which, in each phase of
// a MoE layer's forward pass. Backward sends the same the other way. Pure functions, thread-safe.

#include <algorithm>
#include <cstdint>
#include <span>

#include "base/itinerary.h"
#include "base/topology.h"

namespace cartesian {

/// In the order in which they happen. Backward goes through them in reverse.
enum class TravelPhase : std::uint8_t { a_dispatch, a_combine, b_dispatch, b_combine };
inline constexpr int kTravelPhases = 4;

struct TokenRoute {
  int home = 0;
  int pivot = 0;
  std::span<const std::int32_t> a_ranks;  ///< negative entries are skipped
  std::span<const std::int32_t> b_ranks;  ///< empty in a layer with one sub-layer
};

/// Calls visit(phase, from, to) for every row that goes from one rank to another. Between nodes a
/// row goes to the token's rail there, which hands it to the experts' ranks; sums return the same
/// way. In the flat flow every choice has a row of its own.
template <class Visit>
void for_each_message(Flow flow, const TokenRoute& route, const Topology& topology, Visit visit) {
  const auto first_of = [](std::span<const std::int32_t> ranks, std::size_t i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (ranks[j] == ranks[i]) {
        return false;
      }
    }
    return true;
  };
  const auto first_on_node = [&](std::span<const std::int32_t> ranks, std::size_t i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (ranks[j] >= 0 && topology.node(ranks[j]) == topology.node(ranks[i])) {
        return false;
      }
    }
    return true;
  };
  // Between `centre` and the experts' ranks: out is a dispatch from it, else a combine to it.
  const auto star = [&](TravelPhase phase, bool out, int centre,
                        std::span<const std::int32_t> ranks) {
    const auto send = [&](int hub, int leaf) {
      if (hub != leaf) {
        out ? visit(phase, hub, leaf) : visit(phase, leaf, hub);
      }
    };
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      if (ranks[i] < 0) {
        continue;
      }
      if (flow == Flow::flat) {
        send(centre, ranks[i]);
        continue;
      }
      const int node = topology.node(ranks[i]);
      const bool away = node != topology.node(centre);
      const int rail = away ? topology.rail(node, route.home) : centre;
      if (away && first_on_node(ranks, i)) {
        send(centre, rail);
      }
      if (first_of(ranks, i)) {
        send(rail, ranks[i]);
      }
    }
  };
  const bool nothing = std::all_of(route.b_ranks.begin(), route.b_ranks.end(),
                                   [](std::int32_t rank) { return rank < 0; });
  star(TravelPhase::a_dispatch, true, route.home, route.a_ranks);
  star(TravelPhase::a_combine, false, route.pivot, route.a_ranks);
  star(TravelPhase::b_dispatch, true, route.pivot, route.b_ranks);
  star(TravelPhase::b_combine, false, route.home, route.b_ranks);
  if (nothing && route.pivot != route.home) {  // what A made of the token returns alone
    visit(TravelPhase::b_combine, route.pivot, route.home);
  }
}

}  // namespace cartesian
