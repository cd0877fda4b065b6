#pragma once
// LayerSearch: one layer's experts to nodes, each once, under given limits: starts, pairs, exact
// costs on a sample of the tokens, and in the end the whole trace.

#include <cstdint>
#include <memory>
#include <vector>

#include "planner/partition_search.h"
#include "planner/rank_repair.h"
#include "planner/token_sample.h"

namespace cartesian {

/// Not thread-safe.
class LayerSearch {
 public:
  using Nodes = std::vector<int>;  ///< [experts]
  struct Task {
    const LayerTrace& layer;
    const Topology& topology;
    std::shared_ptr<const CoActivation> all;
    Partition::Costs costs;
    NodeLimits limits;
    RankLimits ranks;
    std::uint64_t seed = 1;
    std::int64_t work = 0;  ///< in units of Partition::work()
  };

  explicit LayerSearch(Task task);

  /// Where searches may begin, what costs least in a sample first; not all keep the limits.
  const std::vector<Nodes>& starts() const { return starts_; }
  /// The best that is found within the limits; no worse than the linear placement and the one
  /// before, in the whole trace, if they are within them. `share`: of the work.
  Nodes run(double share);

 private:
  void begin(std::int64_t work);
  Nodes near_homes(const Nodes& nodes) const;
  bool repaired();
  double excess(const Nodes& nodes) const;
  Nodes best_of(const std::vector<Nodes>& candidates) const;

  Task task_;
  TokenSample tokens_;
  Partition partition_;
  std::vector<Nodes> starts_;
};

}  // namespace cartesian
