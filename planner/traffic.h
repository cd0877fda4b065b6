#pragma once
// Traffic: what the tokens of a trace would send over a placement, counted message by message from
// their itineraries (base/itinerary.h, base/messages.h), so it is what comm would send. Forward
// pass; backward sends the same the other way.

#include <array>
#include <vector>

#include "planner/token_router.h"

namespace cartesian {

struct Traffic {
  struct Phase {
    std::vector<double> egress;   ///< [nodes] rows that leave the node
    std::vector<double> ingress;  ///< [nodes]
    double intra = 0;             ///< rows between ranks of a node
    double inter() const;
  };
  double tokens = 0;
  std::array<Phase, kTravelPhases> phases;
  std::vector<std::vector<double>> expert_rows;  ///< [groups][ranks] (token, choice) pairs
  std::vector<double> pivots;                    ///< [ranks] tokens whose pivot is there

  /// Rows between nodes.
  double copies() const;
  double copies_per_token() const { return tokens > 0 ? copies() / tokens : 0; }
};

struct TrafficOptions {
  Flow flow = Flow::pivot;
  PivotRule rule = PivotRule::speculative;
  /// Of each token where the trace has none: so many homes are looked at, spread over the ranks,
  /// and the mean is taken. With at least as many as nodes, every node is.
  int homes = 8;
};

/// Throws ConfigError if a home of the trace's is not a rank.
void check_homes(const LayerTrace& layer, const Topology& topology);

/// Of one layer; `index` is its number among the placement's. Throws ConfigError if the rule needs
/// what the trace lacks, or a home is not a rank.
Traffic count_traffic(const LayerTrace& layer, int index, const Placement& placement,
                      const Topology& topology, const TrafficOptions& options);

}  // namespace cartesian
