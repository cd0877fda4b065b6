#pragma once
// LayerTrace: one MoE layer's part of a routing trace, as the planner reads it. A view: the trace
// must outlive it. Immutable, thread-safe.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/placement.h"
#include "base/routing_trace.h"

namespace cartesian {

struct LayerTrace {
  struct Group {
    std::int64_t choices = 0;
    std::span<const std::int16_t> ids;  ///< [tokens, choices], -1 where there is none
    std::span<const float> gates;       ///< likewise
    std::span<const std::int16_t> of(std::int64_t token) const {
      return ids.subspan(static_cast<std::size_t>(token * choices),
                         static_cast<std::size_t>(choices));
    }
  };

  int block = 0;
  std::int64_t tokens = 0;
  int experts = 0;
  std::vector<Group> groups;                  ///< A, or A and B
  std::span<const std::int16_t> speculative;  ///< of B; may be empty
  std::span<const std::int32_t> home;         ///< [tokens] ranks; empty: uniform
};

/// The layers of a trace, first to last. Throws ConfigError, naming the block, unless all have the
/// same sub-layers and no token makes more than 255 choices in one.
std::vector<LayerTrace> layers_of(const RoutingTrace& trace);

/// What a placement of the trace's model on `ranks` ranks must have.
PlacementShape placement_shape(const RoutingTrace& trace, int ranks);

}  // namespace cartesian
