#pragma once
// LayerLimits: what nodes and ranks may hold and serve of one layer, by the cap of the options, or
// where slots cannot keep it by what balancing reaches.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "planner/layer_packing.h"
#include "planner/plan.h"
#include "planner/rank_repair.h"

namespace cartesian {

/// Immutable, thread-safe.
class LayerLimits {
 public:
  /// All but `all` must outlive this. `slots`: of a rank; `shares`: load_shares().
  LayerLimits(const LayerTrace& layer, const Topology& topology, const PlanOptions& options,
              const CoActivation& all, int slots, std::span<const double> shares);

  /// On both groups together.
  const NodeLimits& together() const { return together_; }
  /// On each group by itself, too.
  const NodeLimits& by_group() const { return by_group_; }
  const RankLimits& ranks() const { return ranks_; }
  /// Replicas reach more than one of each: never above together() or by_group().
  NodeLimits with_replicas(bool by_group) const;
  /// Whether it keeps the slots and the cap, or where the cap cannot be kept what is aimed at.
  /// Replicas are taken to serve as much each; that a slow rank takes longer for it is no reason.
  bool allow(const ExpertRanks& ranks) const;

 private:
  using Nodes = std::vector<int>;  // [experts]
  /// [nodes] of all nodes whose ranks have the same shares, the largest load, over the mean of its
  /// share; at least 1.
  using Worst = std::vector<double>;

  std::vector<Loads> node_loads(const Nodes& nodes) const;
  double over_mean(double load, double total, double share) const;
  template <class LoadOf>
  Worst worst_of(const std::vector<Loads>& loads, const LoadOf& load_of) const;
  Worst worst_nodes(const std::vector<Loads>& loads) const;
  Worst worst_of_group(const std::vector<Loads>& loads) const;
  Worst aimed_rank_loads(const CoActivation& all, const Nodes& by_group,
                         const Nodes& together) const;
  Worst aimed_loads(const Worst& balanced) const;
  NodeLimits limits_of(const Worst& load, const std::optional<Worst>& group) const;

  const LayerTrace& layer_;
  const Topology& topology_;
  const PlanOptions& options_;
  int groups_;
  std::vector<std::int64_t> loads_;  // [experts]
  Loads total_;
  RankLimits ranks_;
  NodeLimits together_;
  NodeLimits by_group_;
};

}  // namespace cartesian
