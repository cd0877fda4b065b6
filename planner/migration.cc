#include "planner/migration.h"

#include <algorithm>
#include <limits>
#include <span>
#include <vector>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

namespace {

double largest(const std::vector<double>& bytes) { return *std::ranges::max_element(bytes); }

}  // namespace

double Migration::steps_to_pay_back(double saved_s) const {
  if (replicas == 0) {
    return 0;
  }
  return saved_s > 0 ? seconds / saved_s : std::numeric_limits<double>::infinity();
}

int migration_source(std::span<const int> holders, int rank, const Topology& topology) {
  const auto near = std::ranges::find_if(
      holders, [&](int holder) { return topology.node(holder) == topology.node(rank); });
  return near != holders.end() ? *near : holders.front();
}

Migration plan_migration(const Placement& from, const Placement& to, const Cluster& cluster,
                         double expert_bytes) {
  check(from.shape() == to.shape(), "a placement follows another of its shape");
  const Topology& topology = cluster.topology;
  const PlacementShape& shape = to.shape();
  Migration migration;
  std::vector<double> out(as_index(topology.nodes()));
  std::vector<double> in(as_index(topology.nodes()));
  std::vector<double> given(as_index(topology.ranks()));  // inside nodes
  std::vector<double> taken(as_index(topology.ranks()));
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int group = 0; group < shape.groups; ++group) {
      for (int expert = 0; expert < shape.experts; ++expert) {
        const auto holders = from.replicas(layer, group, expert);
        const auto heirs = to.replicas(layer, group, expert);
        migration.dropped += std::ranges::count_if(
            holders, [&](int rank) { return std::ranges::find(heirs, rank) == heirs.end(); });
        for (const int rank : heirs) {
          if (std::ranges::find(holders, rank) != holders.end()) {
            continue;
          }
          ++migration.replicas;
          const int source = migration_source(holders, rank, topology);
          if (topology.node(source) == topology.node(rank)) {
            migration.intra_bytes += expert_bytes;
            given[as_index(source)] += expert_bytes;
            taken[as_index(rank)] += expert_bytes;
          } else {
            migration.inter_bytes += expert_bytes;
            out[as_index(topology.node(source))] += expert_bytes;
            in[as_index(topology.node(rank))] += expert_bytes;
          }
        }
      }
    }
  }
  migration.seconds =
      std::max({cluster.cards_s(out), cluster.cards_s(in),
                std::max(largest(given), largest(taken)) / cluster.intra.bytes_per_s});
  return migration;
}

}  // namespace cartesian
