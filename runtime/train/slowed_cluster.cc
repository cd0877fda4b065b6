#include "runtime/train/slowed_cluster.h"

#include <algorithm>

#include "base/index.h"

namespace cartesian {

namespace {

constexpr double kSlowest = 1.0 / 8;

}  // namespace

Cluster slowed(Cluster cluster, std::span<const Straggler> stragglers) {
  for (const Straggler& slow : stragglers) {
    const bool is_rank = slow.kind == Straggler::Kind::rank;
    std::vector<double>& speeds = is_rank ? cluster.rank_speeds : cluster.card_speeds;
    if (speeds.empty()) {
      speeds.assign(as_index(is_rank ? cluster.topology.ranks() : cluster.topology.nodes()), 1);
    }
    double& speed = speeds[as_index(slow.number)];
    speed = std::min(speed, std::clamp(1 / slow.factor, kSlowest, 1.0));
  }
  return cluster;
}

}  // namespace cartesian
