#pragma once
// LayerPlanner: the experts of one layer to ranks. What plan.h does for every layer.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "planner/cluster.h"
#include "planner/layer_limits.h"
#include "planner/layer_search.h"
#include "planner/plan.h"
#include "planner/step_costs.h"
#include "planner/timed_plan.h"

namespace cartesian {

/// By loads alone; `slots`: of a rank; `shares`: load_shares().
ExpertRanks balance_layer(const LayerTrace& layer, const Topology& topology, int slots,
                          std::span<const double> shares);

/// Not thread-safe.
class LayerPlanner {
 public:
  struct Task {
    std::uint64_t seed = 1;
    std::int64_t work = 0;    ///< in units of Partition::work()
    double least_saving = 0;  ///< copies, of all the trace's tokens, that pay for a replica
    double copy_s = 0;        ///< of a step, that a copy takes all cards together, there and back
    RowSizes sizes = {};
    double tokens = 0;  ///< of a step
    /// Where experts are now, and the copies that moving one is worth; nullptr: nowhere yet.
    const ExpertRanks* running = nullptr;
    double away = 0;
  };

  /// `layer`, `cluster` and `options` must outlive this.
  LayerPlanner(const LayerTrace& layer, const Cluster& cluster, const PlanOptions& options,
               int slots, const Task& task);

  LayerPlan plan() const;

 private:
  using Nodes = LayerSearch::Nodes;

  LayerPlan fewest_copies(std::int64_t work) const;
  LayerPlan fewest_copies_in_time() const;
  LayerPlan least_time(std::int64_t work) const;
  Nodes search(const NodeLimits& limits, std::int64_t work) const;
  Partition::Costs costs() const;
  TimedPlan timed(ExpertRanks ranks, bool scored) const;
  double seconds_to_move(const ExpertRanks& ranks) const;
  double share_that_pays() const;
  std::vector<ExpertRanks> unsearched() const;
  ExpertRanks linear_ranks() const;
  bool has_slots_left() const;
  bool has_room() const;
  std::int64_t work_for_replicas(std::int64_t work) const;
  NodeSlots one_each(const Nodes& nodes) const;
  NodeSlots replicated(const Nodes& nodes, bool by_group, std::int64_t work) const;
  ExpertRanks pack(const NodeSlots& slots) const;

  const LayerTrace& layer_;
  const Cluster& cluster_;
  const Topology& topology_;
  const PlanOptions& options_;
  Task task_;
  std::shared_ptr<const CoActivation> all_;
  std::vector<double> shares_;
  LayerLimits limits_;
  std::optional<StepCosts> step_;  // where plans are compared by it
};

}  // namespace cartesian
