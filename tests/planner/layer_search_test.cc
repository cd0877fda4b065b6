#include "planner/layer_search.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "planner/dice.h"
#include "planner/starts.h"
#include "planner/synthetic_trace.h"

namespace cartesian::test {
namespace {

double most_loaded(const CoActivation& all, const std::vector<int>& nodes,
                   const RankLimits& ranks) {
  return static_cast<double>(std::ranges::max(most_loaded_ranks(all, nodes, ranks)));
}

/// The linear placement keeps the limits, of ranks too, but swaps of two experts alone may not lead
/// from where copies are few to where ranks are even: what is found is not much over them.
TEST(LayerSearchTest, WithinTheLimitsIfThereIsAnything) {
  const Topology topology = Topology::from_node_sizes(std::vector<int>{3, 3}, 6);
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    const RoutingTrace trace = make_synthetic_trace(
        {.experts = 6, .tokens = 40, .cluster = 3, .skew = 0.02 * static_cast<double>(seed % 50)},
        seed);
    const LayerTrace layer = layers_of(trace)[0];
    const auto all = std::make_shared<CoActivation>(layer);
    RankLimits ranks{.ranks = {3, 3}, .slots = 2, .load = 0};
    const std::vector<int> linear = linear_start(layer, topology);
    ranks.load = most_loaded(*all, linear, ranks);
    NodeLimits limits{.slots = {6, 6}, .load = {0, 0}};
    for (std::size_t expert = 0; expert < linear.size(); ++expert) {
      limits.load[as_index(linear[expert])] += static_cast<double>(all->loads()[expert]) + 1e-6;
    }
    LayerSearch search({.layer = layer,
                        .topology = topology,
                        .all = all,
                        .costs = visit_costs(topology, Flow::pivot, 2),
                        .limits = limits,
                        .ranks = ranks,
                        .seed = seed,
                        .work = 3000});
    EXPECT_LE(most_loaded(*all, search.run(1), ranks), 1.05 * ranks.load) << seed;
  }
}

}  // namespace
}  // namespace cartesian::test
