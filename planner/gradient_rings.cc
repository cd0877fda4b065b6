#include "planner/gradient_rings.h"

#include <map>

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

}  // namespace cartesian
