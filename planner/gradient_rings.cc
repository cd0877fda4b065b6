#include "planner/gradient_rings.h"

#include <algorithm>
#include <map>

#include "base/index.h"

namespace cartesian {

std::vector<GradientRing> gradient_rings(const Placement& placement) {
  const PlacementShape& shape = placement.shape();
  std::map<std::vector<int>, double> experts;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int group = 0; group < shape.groups; ++group) {
      for (int expert = 0; expert < shape.experts; ++expert) {
        const auto replicas = placement.replicas(layer, group, expert);
        if (replicas.size() > 1) {
          ++experts[std::vector<int>(replicas.begin(), replicas.end())];
        }
      }
    }
  }
  std::vector<GradientRing> rings;
  for (const auto& [ranks, count] : experts) {
    rings.push_back({ranks, count});
  }
  return rings;
}

GradientTraffic count_gradients(const Placement& placement, const Cluster& cluster,
                                double expert_bytes) {
  const Topology& topology = cluster.topology;
  GradientTraffic traffic;
  std::vector<double> out(as_index(topology.nodes()));
  std::vector<double> in(as_index(topology.nodes()));
  std::vector<double> inside(as_index(topology.ranks()));
  double latency = 0;
  for (const GradientRing& ring : gradient_rings(placement)) {
    const auto size = static_cast<double>(ring.ranks.size());
    const double bytes = 2 * (size - 1) / size * ring.experts * expert_bytes;
    bool leaves = false;
    for (std::size_t i = 0; i < ring.ranks.size(); ++i) {
      const int from = ring.ranks[i];
      const int to = ring.ranks[(i + 1) % ring.ranks.size()];
      if (topology.node(from) == topology.node(to)) {
        traffic.intra_bytes += bytes;
        inside[as_index(from)] += bytes;
      } else {
        leaves = true;
        traffic.inter_bytes += bytes;
        out[as_index(topology.node(from))] += bytes;
        in[as_index(topology.node(to))] += bytes;
      }
    }
    const LinkClass& link = leaves ? cluster.inter : cluster.intra;
    latency = std::max(latency, 2 * (size - 1) * link.latency_s);
  }
  traffic.seconds =
      latency + std::max({cluster.cards_s(out), cluster.cards_s(in),
                          *std::ranges::max_element(inside) / cluster.intra.bytes_per_s});
  return traffic;
}

}  // namespace cartesian
