// Ways over sets of nodes against those over ranks (base/itinerary.h), with one rank a node and
// placements where no replica is chosen by a hash.

#include "planner/replica_routes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "planner/dice.h"
#include "planner/synthetic_trace.h"
#include "planner/traffic.h"

namespace cartesian::test {
namespace {

struct Case {
  SyntheticTraceSpec spec;
  int nodes = 4;
  Flow flow = Flow::pivot;
  bool speculative = false;  ///< else pivots are chosen by B's own choices
};

Topology one_rank_each(int nodes) {
  return Topology::from_node_sizes(std::vector<int>(as_index(nodes), 1), nodes);
}

RoutingTrace trace_of(const Case& given, std::uint64_t seed) {
  RoutingTrace trace = make_synthetic_trace(given.spec, seed);
  if (!given.speculative) {
    for (RoutingTrace::SubLayer& sub_layer : trace.sub_layers) {
      sub_layer.speculative_ids.clear();
    }
  }
  return trace;
}

/// Every expert in one place or everywhere.
std::vector<NodeSet> random_sets(Dice& dice, int experts, int nodes) {
  std::vector<NodeSet> sets;
  const NodeSet everywhere = nodes == kMostReplicaNodes ? ~NodeSet{0} : (NodeSet{1} << nodes) - 1;
  for (int expert = 0; expert < experts; ++expert) {
    sets.push_back(dice.below(4) == 0 ? everywhere : node_bit(dice.below(nodes)));
  }
  return sets;
}

Placement placement_of(const RoutingTrace& trace, const std::vector<NodeSet>& sets, int nodes) {
  std::vector<std::vector<int>> replicas;
  for (const NodeSet set : sets) {
    auto& ranks = replicas.emplace_back();
    for (int node = 0; node < nodes; ++node) {
      if ((set & node_bit(node)) != 0) {
        ranks.push_back(node);
      }
    }
  }
  return {placement_shape(trace, nodes), replicas};
}

/// Rows between ranks, each of which is a node.
int rows_of(const TokenRoute& route, const Topology& topology) {
  int rows = 0;
  for_each_message(Flow::pivot, route, topology, [&](TravelPhase, int, int) { ++rows; });
  return rows;
}

/// One token's way as comm would send it, and whether other pivots are predicted to be as good.
struct Sent {
  int copies = 0;
  int pivot = 0;
  bool tied = false;
  std::vector<int> a_ranks;
  std::vector<int> b_ranks;
};

class Sender {
 public:
  Sender(const LayerTrace& layer, const Placement& placement, const Topology& topology, Flow flow)
      : layer_(layer), placement_(placement), topology_(topology), flow_(flow) {}

  Sent send(std::int64_t token, int home) const {
    Sent sent;
    const std::vector<int> a = ids_of(layer_.groups[0].of(token));
    const std::vector<int> b =
        layer_.groups.size() == 2 ? ids_of(layer_.groups[1].of(token)) : std::vector<int>();
    std::vector<int> guess = b;
    if (!layer_.speculative.empty()) {
      guess = ids_of(layer_.speculative.subspan(as_index(token) * b.size(), b.size()));
    }
    sent.a_ranks = replicas_of(0, home, home, token, a);
    const Flow flow = b.empty() ? Flow::home : flow_;
    sent.pivot = choose_pivot(flow, 0, home, token,
                              {.a = a, .gates = {}, .a_ranks = sent.a_ranks, .b = guess},
                              placement_, topology_);
    sent.b_ranks = replicas_of(1, sent.pivot, home, token, b);
    sent.copies = rows(home, sent.pivot, sent.a_ranks, sent.b_ranks);
    if (flow == Flow::pivot) {
      int best = 0;
      int least = std::numeric_limits<int>::max();
      std::vector<int> pivots{home};
      pivots.insert(pivots.end(), sent.a_ranks.begin(), sent.a_ranks.end());
      std::ranges::sort(pivots);
      pivots.erase(std::unique(pivots.begin(), pivots.end()), pivots.end());
      for (const int pivot : pivots) {
        if (pivot >= 0) {
          const int then =
              rows(home, pivot, sent.a_ranks, replicas_of(1, pivot, home, token, guess));
          best = then < least ? 1 : best + (then == least ? 1 : 0);
          least = std::min(least, then);
        }
      }
      sent.tied = best > 1;
    }
    return sent;
  }

 private:
  static std::vector<int> ids_of(std::span<const std::int16_t> ids) {
    return {ids.begin(), ids.end()};
  }
  std::vector<int> replicas_of(int group, int origin, int home, std::int64_t token,
                               const std::vector<int>& experts) const {
    std::vector<int> ranks(experts.size());
    if (!experts.empty()) {
      choose_replicas({.layer = 0,
                       .group = group,
                       .origin = origin,
                       .home = home,
                       .token = token,
                       .experts = experts},
                      placement_, topology_, ranks);
    }
    return ranks;
  }
  int rows(int home, int pivot, const std::vector<int>& a, const std::vector<int>& b) const {
    return rows_of({.home = home, .pivot = pivot, .a_ranks = a, .b_ranks = b}, topology_);
  }

  const LayerTrace& layer_;
  const Placement& placement_;
  const Topology& topology_;
  Flow flow_;
};

class ReplicaRoutesTest : public testing::TestWithParam<Case> {};

TEST_P(ReplicaRoutesTest, EveryWayIsTheOneThatIsSent) {
  const Case& given = GetParam();
  const Topology topology = one_rank_each(given.nodes);
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    Dice dice(seed);
    const RoutingTrace trace = trace_of(given, seed);
    const LayerTrace layer = layers_of(trace)[0];
    const auto sets =
        random_sets(dice, layer.experts * static_cast<int>(layer.groups.size()), given.nodes);
    const Placement placement = placement_of(trace, sets, given.nodes);
    const Sender sender(layer, placement, topology, given.flow);
    const ReplicaRoutes routes(layer, topology, {.flow = given.flow, .sample = layer.tokens});
    ASSERT_EQ(routes.tokens(), layer.tokens);
    for (int token = 0; token < routes.tokens(); ++token) {
      for (int home = 0; home < given.nodes; ++home) {
        const ReplicaRoutes::Route route = routes.route(token, home, sets);
        const Sent sent = sender.send(token, home);
        if (!sent.tied || layer.speculative.empty()) {
          ASSERT_EQ(route.copies, sent.copies) << "token " << token << " at " << home;
        }
        if (!sent.tied) {
          ASSERT_EQ(route.pivot, sent.pivot) << "token " << token << " at " << home;
        }
      }
    }
  }
}

TEST_P(ReplicaRoutesTest, ChoicesAreServedWhereTheyAreSent) {
  const Case& given = GetParam();
  const Topology topology = one_rank_each(given.nodes);
  Dice dice(4);
  const RoutingTrace trace = trace_of(given, 4);
  const LayerTrace layer = layers_of(trace)[0];
  const auto sets =
      random_sets(dice, layer.experts * static_cast<int>(layer.groups.size()), given.nodes);
  const Placement placement = placement_of(trace, sets, given.nodes);
  const Sender sender(layer, placement, topology, given.flow);
  const ReplicaRoutes routes(layer, topology,
                             {.flow = given.flow, .sample = layer.tokens, .homes = given.nodes});
  for (int token = 0; token < routes.tokens(); ++token) {
    std::map<std::pair<int, int>, double> served;  // of expert and node
    bool tied = false;
    for (int home = 0; home < given.nodes; ++home) {
      const Sent sent = sender.send(token, home);
      tied = tied || sent.tied;
      for (std::size_t group = 0; group < layer.groups.size(); ++group) {
        const auto ids = layer.groups[group].of(token);
        for (std::size_t i = 0; i < ids.size(); ++i) {
          if (ids[i] >= 0) {
            const int expert = static_cast<int>(group) * layer.experts + ids[i];
            served[{expert, (group == 0 ? sent.a_ranks : sent.b_ranks)[i]}] += 1.0 / given.nodes;
          }
        }
      }
    }
    double shares = 0;
    std::map<std::pair<int, int>, double> routed;
    routes.for_each_served(token, sets, [&](int expert, int node, double share) {
      routed[{expert, node}] += share;
    });
    routes.for_each_home(token, sets, [&](int, double share) { shares += share; });
    EXPECT_NEAR(shares, 1, 1e-9);
    for (const auto& [at, share] : served) {
      EXPECT_TRUE(tied || std::abs(routed[at] - share) < 1e-9) << "token " << token;
    }
  }
}

/// In the mean over homes, sampled or not, the copies are those that are counted.
TEST_P(ReplicaRoutesTest, CopiesAreThoseThatAreCounted) {
  const Case& given = GetParam();
  if (given.speculative) {
    return;  // pivots that are predicted to be as good are not as good
  }
  const Topology topology = one_rank_each(given.nodes);
  Dice dice(5);
  const RoutingTrace trace = trace_of(given, 5);
  const LayerTrace layer = layers_of(trace)[0];
  const auto sets =
      random_sets(dice, layer.experts * static_cast<int>(layer.groups.size()), given.nodes);
  const Placement placement = placement_of(trace, sets, given.nodes);
  for (const int homes : {3, 8, 64}) {
    const ReplicaRoutes routes(layer, topology,
                               {.flow = given.flow, .sample = layer.tokens, .homes = homes});
    double copies = 0;
    for (int token = 0; token < routes.tokens(); ++token) {
      routes.for_each_home(token, sets, [&](int home, double share) {
        copies += share * routes.route(token, home, sets).copies;
      });
    }
    const Flow flow = given.flow == Flow::flat ? Flow::home : given.flow;
    const TrafficOptions options{.flow = flow, .rule = PivotRule::oracle, .homes = homes};
    EXPECT_NEAR(copies, count_traffic(layer, 0, placement, topology, options).copies(), 1e-6)
        << homes << " homes";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, ReplicaRoutesTest,
    testing::Values(
        Case{{.tokens = 100}}, Case{{.tokens = 100}, 5, Flow::home},
        Case{{.tokens = 100}, 5, Flow::flat}, Case{{.groups = 1, .tokens = 100}, 6},
        Case{{.choices = 4, .tokens = 100, .ragged = true}, 7},
        Case{{.choices = 3, .tokens = 100, .prediction = 0.5}, 5, Flow::pivot, true},
        Case{{.tokens = 100, .prediction = 0.3}, 4, Flow::home, true},
        Case{
            {.choices = 3, .tokens = 100, .ragged = true, .prediction = 0.7}, 6, Flow::pivot, true},
        Case{{.tokens = 40}, 1}, Case{{.tokens = 0}, 3}, Case{{.experts = 32, .tokens = 40}, 12},
        Case{{.experts = 64, .choices = 4, .tokens = 20}, 64}),
    [](const testing::TestParamInfo<Case>& given) { return std::to_string(given.index); });

/// A replica at the origin is used, else one on a node that is visited anyway, else one at home.
TEST(ReplicaRoutesEdges, NearestReplicaServes) {
  RoutingTrace trace = make_synthetic_trace({.groups = 1, .experts = 4, .tokens = 1}, 1);
  trace.sub_layers[0].ids = {0, 1};
  const LayerTrace layer = layers_of(trace)[0];
  const Topology topology = one_rank_each(4);
  const ReplicaRoutes routes(layer, topology, {});
  const std::vector<NodeSet> sets{node_bit(2), node_bit(1) | node_bit(2), node_bit(0), node_bit(0)};
  EXPECT_EQ(routes.route(0, 0, sets).copies, 2);  // both at node 2
  EXPECT_EQ(routes.route(0, 1, sets).copies, 2);  // the second at home
  EXPECT_EQ(routes.route(0, 2, sets).copies, 0);
  EXPECT_EQ(routes.route(0, 3, sets).copies, 2);
}

/// A layer that has speculative choices is planned by them, also where there are none of a token.
TEST(ReplicaRoutesEdges, NothingIsPredicted) {
  RoutingTrace trace = make_synthetic_trace({.experts = 4, .choices = 1, .tokens = 1}, 1);
  trace.sub_layers[0].ids = {0};
  trace.sub_layers[1].ids = {1};
  trace.sub_layers[1].speculative_ids = {-1};
  const LayerTrace layer = layers_of(trace)[0];
  const Topology topology = one_rank_each(3);
  const ReplicaRoutes routes(layer, topology, {});
  std::vector<NodeSet> sets(8, node_bit(0));
  sets[0] = node_bit(1);
  sets[5] = node_bit(1);
  const Placement placement = placement_of(trace, sets, 3);
  const Sent sent = Sender(layer, placement, topology, Flow::pivot).send(0, 2);
  EXPECT_EQ(routes.route(0, 2, sets).pivot, sent.pivot);
  EXPECT_EQ(routes.route(0, 2, sets).copies, sent.copies);
}

/// The hash of tokens and experts does not wrap, however many experts there are: 40503 e of B's
/// expert 30000, by hand.
TEST(ReplicaRoutesEdges, VeryManyExperts) {
  RoutingTrace trace = make_synthetic_trace({.experts = 32767, .choices = 1, .tokens = 1}, 1);
  trace.sub_layers[0].ids = {0};
  trace.sub_layers[1].ids = {30000};
  const LayerTrace layer = layers_of(trace)[0];
  const Topology topology = one_rank_each(8);
  const ReplicaRoutes routes(layer, topology, {.flow = Flow::home});
  std::vector<NodeSet> sets(as_index(2 * 32767), node_bit(0));
  sets[as_index(32767 + 30000)] = 0xFE;
  std::vector<double> served(8);
  routes.for_each_served(0, sets, [&](int expert, int node, double share) {
    served[as_index(node)] += expert > 0 ? share : 0;
  });
  // From home 1 to 7 at home, from 0 where the hash says.
  EXPECT_EQ(served[as_index(1 + 62767 * std::int64_t{40503} / 128 % 7)], 2.0 / 8);
  EXPECT_EQ(served[0], 0);
}

}  // namespace
}  // namespace cartesian::test
