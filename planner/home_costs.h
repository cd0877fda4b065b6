#pragma once
// HomeCosts: the copies between nodes that each token of a trace needs in all layers, for every
// node that it may have its home on. Counted message by message, as in planner/traffic.h.

#include <cstdint>
#include <span>
#include <vector>

#include "base/routing_trace.h"
#include "planner/token_router.h"

namespace cartesian {

/// Immutable, thread-safe.
class HomeCosts {
 public:
  /// Whatever homes the trace has are not looked at. Throws ConfigError if the rule needs what the
  /// trace lacks. REQUIRES: `placement` is of this trace and topology.
  HomeCosts(const RoutingTrace& trace, const Placement& placement, const Topology& topology,
            Flow flow, PivotRule rule, int threads);

  std::int64_t tokens() const { return tokens_; }
  int nodes() const { return nodes_; }
  /// Of one token at home on each node, forward: [nodes].
  std::span<const float> of(std::int64_t token) const;
  /// What the token saves at home on each node against the mean over all ranks: [nodes], written.
  void savings(std::int64_t token, std::span<double> of_nodes) const;
  /// Copies per token with homes spread evenly over the ranks.
  double uniform() const;

 private:
  double mean(std::int64_t token) const;

  std::int64_t tokens_;
  int nodes_;
  std::vector<double> share_;  // [nodes] of the ranks
  std::vector<float> copies_;  // [tokens, nodes]
};

}  // namespace cartesian
