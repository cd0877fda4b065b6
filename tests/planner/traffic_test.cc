// Copies counted against a simulation that knows nothing of itineraries: sets of nodes, from the
// description of the flows.

#include "planner/traffic.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "planner/synthetic_trace.h"
#include "tests/support/expect_error.h"

namespace cartesian::test {
namespace {

Topology uneven() { return Topology::from_node_sizes(std::vector<int>{2, 1, 3}, 6); }

/// Expert e of group g on rank (5 e + 3 g) mod 6.
Placement scattered(const RoutingTrace& trace) {
  std::vector<std::vector<int>> replicas;
  const PlacementShape shape = placement_shape(trace, 6);
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int group = 0; group < shape.groups; ++group) {
      for (int expert = 0; expert < shape.experts; ++expert) {
        replicas.push_back({(5 * expert + 3 * group) % 6});
      }
    }
  }
  return {shape, replicas};
}

std::set<int> nodes_of(const LayerTrace& layer, std::size_t group, std::int64_t token,
                       const Placement& placement) {
  std::set<int> nodes;
  for (const std::int16_t id : layer.groups[group].of(token)) {
    if (id >= 0) {
      nodes.insert(uneven().node(placement.replicas(0, static_cast<int>(group), id)[0]));
    }
  }
  return nodes;
}

int others(const std::set<int>& nodes, int node) {
  return static_cast<int>(nodes.size()) - (nodes.contains(node) ? 1 : 0);
}

/// Copies of one token in the home flow, or with the best pivot that there is.
int copies_of(const std::set<int>& a, const std::set<int>& b, int home, bool pivot) {
  int best = 2 * others(a, home) + 2 * others(b, home);
  for (const int p : a) {
    if (pivot) {
      const int stays = b.empty() && p != home ? 1 : 0;
      best =
          std::min(best, others(a, home) + others(a, p) + others(b, p) + others(b, home) + stays);
    }
  }
  return best;
}

TEST(TrafficTest, CopiesAreThoseOfASimulation) {
  for (const SyntheticTraceSpec& spec :
       {SyntheticTraceSpec{}, SyntheticTraceSpec{.choices = 4, .ragged = true},
        SyntheticTraceSpec{.groups = 1}}) {
    RoutingTrace trace = make_synthetic_trace(spec, 7);
    for (std::int64_t token = 0; token < trace.tokens; ++token) {
      trace.home.push_back(static_cast<std::int32_t>(token * 5 % 6));
    }
    const LayerTrace layer = layers_of(trace)[0];
    const Placement placement = scattered(trace);
    double flat = 0;
    double home = 0;
    double pivot = 0;
    for (std::int64_t token = 0; token < trace.tokens; ++token) {
      const int node = uneven().node(layer.home[static_cast<std::size_t>(token)]);
      const std::set<int> a = nodes_of(layer, 0, token, placement);
      const std::set<int> b =
          spec.groups == 2 ? nodes_of(layer, 1, token, placement) : std::set<int>();
      home += copies_of(a, b, node, false);
      pivot += copies_of(a, b, node, spec.groups == 2);
      for (std::size_t group = 0; group < layer.groups.size(); ++group) {
        for (const std::int16_t id : layer.groups[group].of(token)) {
          flat += id >= 0 && uneven().node(placement.replicas(0, static_cast<int>(group), id)[0]) !=
                                 node
                      ? 2
                      : 0;
        }
      }
    }
    const auto count = [&](Flow flow, PivotRule rule) {
      return count_traffic(layer, 0, placement, uneven(), {.flow = flow, .rule = rule}).copies();
    };
    EXPECT_NEAR(count(Flow::flat, PivotRule::oracle), flat, 1e-9);
    EXPECT_NEAR(count(Flow::home, PivotRule::oracle), home, 1e-9);
    EXPECT_NEAR(count(Flow::pivot, PivotRule::oracle), pivot, 1e-9);
    // A right prediction is as good as the truth; less evidence is never better.
    EXPECT_NEAR(count(Flow::pivot, PivotRule::speculative), pivot, 1e-9);
    EXPECT_GE(count(Flow::pivot, PivotRule::gate), pivot);
  }
}

TEST(TrafficTest, WithoutHomesItIsTheMeanOverAll) {
  RoutingTrace trace = make_synthetic_trace({.tokens = 60}, 3);
  const Placement placement = scattered(trace);
  const TrafficOptions options{.flow = Flow::pivot, .rule = PivotRule::speculative};
  const double mean = count_traffic(layers_of(trace)[0], 0, placement, uneven(), options).copies();
  double sum = 0;
  for (int rank = 0; rank < 6; ++rank) {
    trace.home.assign(static_cast<std::size_t>(trace.tokens), rank);
    sum += count_traffic(layers_of(trace)[0], 0, placement, uneven(), options).copies();
  }
  EXPECT_NEAR(mean, sum / 6, 1e-9 * sum);
}

TEST(TrafficTest, WhatLeavesArrives) {
  const RoutingTrace trace = make_synthetic_trace({.choices = 3}, 4);
  const Traffic traffic = count_traffic(layers_of(trace)[0], 0, scattered(trace), uneven(), {});
  for (const Traffic::Phase& phase : traffic.phases) {
    double arrived = 0;
    for (const double rows : phase.ingress) {
      arrived += rows;
    }
    EXPECT_NEAR(phase.inter(), arrived, 1e-9 * (1 + arrived));
  }
  double rows = 0;
  for (const auto& group : traffic.expert_rows) {
    for (const double of_rank : group) {
      rows += of_rank;
    }
  }
  EXPECT_NEAR(rows, 6.0 * static_cast<double>(trace.tokens), 1e-6);
}

TEST(TrafficTest, WhatTheTraceLacksIsSaid) {
  RoutingTrace trace = make_synthetic_trace({}, 1);
  const Placement placement = scattered(trace);
  trace.sub_layers[1].speculative_ids.clear();
  expect_error<ConfigError>([&] { count_traffic(layers_of(trace)[0], 0, placement, uneven(), {}); },
                            {"speculative", "block 0"});
  trace.home.assign(static_cast<std::size_t>(trace.tokens), 6);
  expect_error<ConfigError>(
      [&] { count_traffic(layers_of(trace)[0], 0, placement, uneven(), {.flow = Flow::home}); },
      {"rank 6", "6 ranks"});
}

}  // namespace
}  // namespace cartesian::test
