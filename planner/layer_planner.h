#pragma once
// LayerPlanner: the experts of one layer to ranks. What plan.h does for every layer.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "planner/balance.h"
#include "planner/cluster.h"
#include "planner/layer_search.h"
#include "planner/plan.h"
#include "planner/step_costs.h"

namespace cartesian {

struct LayerPlan {
  ExpertRanks ranks;
  bool scored = true;  ///< pivot scores shorten the step
};

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
               int slots);

  ExpertRanks balanced() const;
  LayerPlan plan(const Task& task);

 private:
  using Nodes = LayerSearch::Nodes;
  using Slots = std::vector<std::vector<Slot>>;  // [nodes]

  void set_limits();
  Partition::Costs costs(const Task& task) const;
  std::vector<Loads> node_loads(const Nodes& nodes) const;
  double worst_node(const std::vector<Loads>& loads) const;
  double worst_of_group(const std::vector<Loads>& loads) const;
  NodeLimits limits_of(double load, std::optional<double> group) const;
  NodeLimits replica_limits() const;
  bool allowed(const ExpertRanks& ranks) const;
  LayerSearch::Task search_task(const Task& task, const NodeLimits& limits,
                                std::int64_t work) const;
  LayerPlan fewest_copies(const Task& task);
  LayerPlan least_time(const Task& task);
  double seconds_to_move(const Task& task, const ExpertRanks& ranks) const;
  ExpertRanks linear_ranks() const;
  bool has_room() const;
  Slots one_each(const Nodes& nodes) const;
  Slots replicated(const Task& task, const Nodes& nodes, std::int64_t work) const;
  ExpertRanks to_ranks(const Slots& slots, const ExpertRanks* running) const;

  const LayerTrace& layer_;
  const Cluster& cluster_;
  const Topology& topology_;
  const PlanOptions& options_;
  int groups_;
  std::vector<std::int64_t> loads_;  // [experts]
  Loads total_;
  NodeLimits limits_;        // of what is searched
  NodeLimits group_limits_;  // the same with limits of each group
  RankLimits ranks_;
  std::shared_ptr<const CoActivation> all_;
};

}  // namespace cartesian
