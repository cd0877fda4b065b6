#pragma once
// LayerPlanner: the experts of one layer to ranks. What plan.h does for every layer.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "planner/balance.h"
#include "planner/cluster.h"
#include "planner/co_activation.h"
#include "planner/partition_search.h"
#include "planner/plan.h"
#include "planner/replica_costs.h"

namespace cartesian {

/// Ranks of each expert, ascending: [experts of A, then of B].
using ExpertRanks = std::vector<std::vector<int>>;

/// Not thread-safe.
class LayerPlanner {
 public:
  struct Task {
    std::uint64_t seed = 1;
    std::int64_t work = 0;    ///< in units of Partition::work()
    double least_saving = 0;  ///< copies, of all the trace's tokens, that pay for a replica
    /// Where experts are now, and the copies that moving one is worth; nothing: nowhere yet.
    const ExpertRanks* running = nullptr;
    double away = 0;
  };

  /// `layer`, `cluster` and `options` must outlive this.
  LayerPlanner(const LayerTrace& layer, const Cluster& cluster, const PlanOptions& options,
               int slots);

  ExpertRanks balanced() const;
  ExpertRanks plan(const Task& task);

 private:
  using Nodes = std::vector<int>;                // [experts]
  using Slots = std::vector<std::vector<Slot>>;  // [nodes]

  void raise_limits(const Nodes& even);
  Partition::Costs costs(const Task& task) const;
  std::vector<Nodes> starts(const Task& task, const LayerTrace& tokens, std::int64_t work) const;
  bool repaired(Partition& partition) const;
  Nodes search(const Task& task, std::int64_t work) const;
  Nodes best_of(const Task& task, const std::vector<Nodes>& candidates) const;
  bool within_limits(const Nodes& nodes) const;
  bool has_room() const;
  Slots one_each(const Nodes& nodes) const;
  Slots replicated(const Task& task, const Nodes& nodes, std::int64_t work) const;
  ExpertRanks to_ranks(const Slots& slots, const ExpertRanks* running) const;

  const LayerTrace& layer_;
  const Topology& topology_;
  const PlanOptions& options_;
  int slots_;                        // of a rank
  std::vector<std::int64_t> loads_;  // [experts]
  std::vector<int> node_ranks_;      // [nodes]
  std::vector<double> mean_;         // [nodes] load, if all ranks had the same
  NodeLimits limits_;
  double rank_limit_ = 0;  // load of a rank
  std::shared_ptr<const CoActivation> all_;
};

}  // namespace cartesian
