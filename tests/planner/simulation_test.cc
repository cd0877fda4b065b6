// Steps whose time can be told by hand: a row takes 1 s on a card and 0.1 s on a link inside a
// node, with latencies of 0.5 s and 0.1 s; an expert's products for it take 1 s. Then bounds that
// hold for any step.

#include "planner/simulation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "planner/layer_schedule.h"
#include "planner/step_time.h"
#include "planner/synthetic_trace.h"
#include "planner/traffic.h"
#include "tests/support/expect_error.h"

namespace cartesian::test {
namespace {

using Ids = std::vector<std::int16_t>;

constexpr double kRowBytes = 100;  // of hidden size 25
constexpr double kSmall = 1e-9;

Cluster cluster_of(const std::vector<int>& node_sizes) {
  Cluster cluster;
  int ranks = 0;
  for (const int size : node_sizes) {
    ranks += size;
  }
  cluster.topology = Topology::from_node_sizes(node_sizes, ranks);
  cluster.intra = {.bytes_per_s = 1000, .latency_s = 0.1};
  cluster.inter = {.bytes_per_s = 100, .latency_s = 0.5};
  cluster.flops = 1500;
  return cluster;
}

/// One layer, one choice in a sub-layer; expert e is to be on rank e.
RoutingTrace trace_of(int experts, const std::vector<std::int32_t>& homes,
                      const std::vector<Ids>& groups) {
  RoutingTrace trace;
  trace.tokens = static_cast<std::int64_t>(homes.size());
  trace.experts = experts;
  trace.hidden = 25;
  trace.expert_width = 10;
  trace.home = homes;
  for (std::size_t group = 0; group < groups.size(); ++group) {
    trace.sub_layers.push_back(
        {.block = 0,
         .group = static_cast<int>(group),
         .choices =
             homes.empty() ? 1 : static_cast<std::int64_t>(groups[group].size() / homes.size()),
         .ids = groups[group],
         .gates = std::vector<float>(groups[group].size(), 1),
         .speculative_ids = {}});
  }
  return trace;
}

Placement linear(const RoutingTrace& trace, const Cluster& cluster) {
  const int ranks = cluster.topology.ranks();
  return Placement::linear(placement_shape(trace, ranks), ranks);
}

double seconds(const RoutingTrace& trace, const Cluster& cluster,
               const SimulationOptions& options = {.flow = Flow::home}) {
  return simulate_step(trace, cluster, linear(trace, cluster), options).seconds;
}

TEST(SimulationTest, AMessageTakesItsLatencyAndItsBytes) {
  const RoutingTrace trace = trace_of(2, {0}, {{1}});
  // There, the expert, and back; then the same with twice the products.
  EXPECT_NEAR(seconds(trace, cluster_of({1, 1})), 4 * 1.5 + 3, kSmall);
  EXPECT_NEAR(seconds(trace, cluster_of({2})), 4 * 0.2 + 3, kSmall);
  EXPECT_NEAR(seconds(trace_of(2, {0}, {{0}}), cluster_of({1, 1})), 3, kSmall);
}

TEST(SimulationTest, MessagesThroughOneCardFollowEachOther) {
  const Cluster cluster = cluster_of({1, 1, 1});
  // Rank 2's row leaves after rank 1's, and its output comes last.
  EXPECT_NEAR(seconds(trace_of(3, {0}, {{1, 2}}), cluster), (1 + 3 + 1) + (1 + 3 + 2), kSmall);
  // Two homes send to one card at once, and the second row waits for the first; rank 0 has its
  // output first and goes on alone.
  EXPECT_NEAR(seconds(trace_of(3, {0, 1}, {{2, 2}}), cluster), (1 + 4 + 2) + (1.5 + 4 + 2.5),
              kSmall);
}

TEST(SimulationTest, RowsGoByRails) {
  const Cluster cluster = cluster_of({2, 2});
  EXPECT_NEAR(seconds(trace_of(4, {0}, {{3}}), cluster), 4 * (1.5 + 0.2) + 3, kSmall);
  EXPECT_NEAR(seconds(trace_of(4, {0}, {{2}}), cluster), 4 * 1.5 + 3, kSmall);
  EXPECT_NEAR(seconds(trace_of(4, {0}, {{3}}), cluster, {.flow = Flow::flat}), 4 * 1.5 + 3, kSmall);
}

TEST(SimulationTest, AChunkComputesWhileAnotherTravels) {
  const Cluster cluster = cluster_of({1, 1});
  const RoutingTrace trace = trace_of(2, {0, 0}, {{1, 1}});
  EXPECT_NEAR(seconds(trace, cluster), (1 + 4 + 2) + (1 + 4 + 4), kSmall);
  EXPECT_NEAR(seconds(trace, cluster, {.flow = Flow::home, .chunks = 2}), 5 + 7, kSmall);
}

TEST(SimulationTest, OneChunkOfOneTokenIsTheSumOfItsPhases) {
  const Cluster cluster = cluster_of({1, 1, 1});
  for (const auto& [flow, copies] : {std::pair(Flow::home, 4), std::pair(Flow::pivot, 3)}) {
    const RoutingTrace trace = trace_of(3, {0}, {{1}, {2}});
    const SimulationOptions options{.flow = flow, .rule = PivotRule::oracle};
    const Traffic traffic =
        count_traffic(layers_of(trace)[0], 0, linear(trace, cluster), cluster.topology,
                      {.flow = flow, .rule = PivotRule::oracle});
    const double router_s = 2.0 * 25 * 3 / 1500;
    const double by_hand = 2 * 1.5 * copies + 3 * (2 + router_s);
    EXPECT_NEAR(seconds(trace, cluster, options), by_hand, kSmall);
    EXPECT_NEAR(predict_step(traffic, 1, cluster, row_sizes(trace)).total(), by_hand, kSmall);
  }
}

TEST(SimulationTest, SharedExpertsAndAttentionAreComputedOnce) {
  const RoutingTrace trace = trace_of(2, {0}, {{0}, {0}});
  const double plain = seconds(trace, cluster_of({1, 1}));
  EXPECT_NEAR(seconds(trace, cluster_of({1, 1}), {.flow = Flow::home, .shared_width = 10}),
              plain + 3 * 2, kSmall);
  EXPECT_NEAR(seconds(trace, cluster_of({1, 1}), {.flow = Flow::home, .attention_flops = 3000}),
              plain + 3 * 2, kSmall);
}

TEST(SimulationTest, TokensStandForThoseOfAStep) {
  const RoutingTrace trace = trace_of(2, {0}, {{1}});
  EXPECT_NEAR(seconds(trace, cluster_of({1, 1}), {.flow = Flow::home, .tokens_per_step = 10}),
              4 * (0.5 + 10) + 30, kSmall);
}

TEST(SimulationTest, RanksDoNotWaitForThoseTheyNeedNothingOf) {
  const Cluster cluster = cluster_of({1, 1, 1});
  RoutingTrace trace = trace_of(3, {0, 1}, {{0, 2}});
  RoutingTrace::SubLayer second = trace.sub_layers[0];
  second.block = 1;
  trace.sub_layers.push_back(second);
  const StepSimulation step = simulate_step(trace, cluster, linear(trace, cluster),
                                            {.flow = Flow::home, .timeline_nodes = {0, 1, 2}});
  std::vector<double> starts;
  for (const TimelineSpan& span : step.spans) {
    if (span.kind == ResourceKind::compute && span.unit == 0) {
      starts.push_back(span.start_s);
    }
  }
  EXPECT_EQ(starts, (std::vector<double>{0, 1, 2, 4}));
  EXPECT_NEAR(step.seconds, 8 * 1.5 + 6, kSmall);
}

TEST(SimulationTest, ReplicasAddUpTheirGradients) {
  const Cluster cluster = cluster_of({1, 1, 1});
  const RoutingTrace trace = trace_of(1, {}, {{}});
  const auto ring = [&](const std::vector<int>& ranks) {
    const Placement placement(placement_shape(trace, 3), {ranks});
    return simulate_step(trace, cluster, placement, {.flow = Flow::home});
  };
  constexpr double kGradientBytes = 3 * 25 * 10 * 4;
  EXPECT_EQ(ring({1}).seconds, 0);
  EXPECT_NEAR(ring({0, 2}).seconds, 2 * 0.5 + kGradientBytes / 100, kSmall);
  EXPECT_NEAR(ring({0, 1, 2}).seconds, 4 * 0.5 + 4.0 / 3 * kGradientBytes / 100, kSmall);
  const auto phase = static_cast<std::size_t>(StepPhase::gradients);
  EXPECT_NEAR(ring({0, 1, 2}).phases.at(phase).inter_bytes, 4 * kGradientBytes, 1e-6);
}

/// A step of many tokens on ranks and nodes of any number.
struct Case {
  SyntheticTraceSpec spec;
  std::vector<int> node_sizes;
  Flow flow;
  int chunks;
};

std::vector<Case> cases() {
  const std::vector<SyntheticTraceSpec> specs = {
      {.layers = 2, .experts = 12, .cluster = 3},
      {.layers = 1, .experts = 12, .choices = 4, .skew = 1, .ragged = true},
      {.layers = 2, .groups = 1, .experts = 12},
      {.layers = 1, .experts = 12, .tokens = 3}};
  std::vector<Case> made;
  for (const SyntheticTraceSpec& spec : specs) {
    for (const Flow flow : {Flow::flat, Flow::home, Flow::pivot}) {
      for (const int chunks : {1, 2, 5}) {
        made.push_back({spec, {2, 1, 3}, flow, chunks});
        made.push_back({spec, std::vector<int>(12, 1), flow, chunks});
      }
    }
  }
  return made;
}

RoutingTrace trace_with_homes(const SyntheticTraceSpec& spec, int ranks) {
  RoutingTrace trace = make_synthetic_trace(spec, 5);
  for (std::int64_t token = 0; token < trace.tokens; ++token) {
    trace.home.push_back(static_cast<std::int32_t>(token * 5 % ranks));
  }
  return trace;
}

TEST(SimulationTest, NothingIsFasterThanTheBusiestCardAndRank) {
  for (const Case& c : cases()) {
    const Cluster cluster = cluster_of(c.node_sizes);
    const RoutingTrace trace = trace_with_homes(c.spec, cluster.topology.ranks());
    const StepSimulation step =
        simulate_step(trace, cluster, linear(trace, cluster), {.flow = c.flow, .chunks = c.chunks});
    const double row_s = kRowBytes / 25 * static_cast<double>(trace.hidden) / 100;
    std::vector<double> card(c.node_sizes.size());
    std::vector<double> work(static_cast<std::size_t>(cluster.topology.ranks()));
    const std::vector<LayerTrace> layers = layers_of(trace);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const Traffic traffic = count_traffic(layers[i], static_cast<int>(i), linear(trace, cluster),
                                            cluster.topology, {.flow = c.flow});
      for (const Traffic::Phase& phase : traffic.phases) {
        for (std::size_t node = 0; node < card.size(); ++node) {
          // Backward, what came in goes out.
          card[node] += (phase.egress[node] + phase.ingress[node]) * row_s;
        }
      }
      for (const std::vector<double>& rows : traffic.expert_rows) {
        for (std::size_t rank = 0; rank < rows.size(); ++rank) {
          work[rank] += 3 * rows[rank] * expert_flops(row_sizes(trace)) / cluster.flops;
        }
      }
    }
    EXPECT_GE(step.seconds, *std::ranges::max_element(card) - kSmall);
    EXPECT_GE(step.seconds, *std::ranges::max_element(work) - kSmall);
    EXPECT_NEAR(step.all.inter.most_s, *std::ranges::max_element(card), 1e-6);
    EXPECT_GE(step.all.compute.most_s, *std::ranges::max_element(work) - kSmall);
    EXPECT_LE(step.all.compute.most_s, step.seconds + kSmall);
  }
}

TEST(SimulationTest, SendsWhatTrafficCounts) {
  for (const Case& c : cases()) {
    const Cluster cluster = cluster_of(c.node_sizes);
    const RoutingTrace trace = trace_with_homes(c.spec, cluster.topology.ranks());
    SimulationOptions options{.flow = c.flow, .chunks = c.chunks};
    for (int node = 0; node < cluster.topology.nodes(); ++node) {
      options.timeline_nodes.push_back(node);
    }
    const StepSimulation step = simulate_step(trace, cluster, linear(trace, cluster), options);
    double copies = 0;
    double intra = 0;
    const std::vector<LayerTrace> layers = layers_of(trace);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const Traffic traffic = count_traffic(layers[i], static_cast<int>(i), linear(trace, cluster),
                                            cluster.topology, {.flow = c.flow});
      copies += traffic.copies();
      for (const Traffic::Phase& phase : traffic.phases) {
        intra += phase.intra;
      }
    }
    const double row_bytes = 4.0 * static_cast<double>(trace.hidden);
    double forward = 0;
    double arrived = 0;
    for (const TimelineSpan& span : step.spans) {
      forward += span.kind == ResourceKind::card_out && !span.backward ? span.bytes : 0;
      arrived += span.kind == ResourceKind::card_in && !span.backward ? span.bytes : 0;
    }
    EXPECT_EQ(forward, copies * row_bytes);
    EXPECT_EQ(arrived, copies * row_bytes);
    EXPECT_EQ(step.all.inter_bytes, 2 * copies * row_bytes);
    EXPECT_EQ(step.all.intra_bytes, 2 * intra * row_bytes);
  }
}

TEST(SimulationTest, IsTheSameEveryTimeOnAnyThreads) {
  const RoutingTrace trace = make_synthetic_trace({.layers = 3, .tokens = 500}, 2);
  const Cluster cluster = cluster_of({2, 2, 1});
  const StepSimulation one =
      simulate_step(trace, cluster, linear(trace, cluster), {.chunks = 3, .timeline_nodes = {1}});
  const StepSimulation other = simulate_step(trace, cluster, linear(trace, cluster),
                                             {.chunks = 3, .timeline_nodes = {1}, .threads = 3});
  EXPECT_EQ(one.seconds, other.seconds);
  ASSERT_EQ(one.spans.size(), other.spans.size());
  for (std::size_t i = 0; i < one.spans.size(); ++i) {
    EXPECT_EQ(one.spans[i].start_s, other.spans[i].start_s);
    EXPECT_EQ(one.spans[i].bytes, other.spans[i].bytes);
  }
}

TEST(SimulationTest, WithoutTokensNothingHappens) {
  const RoutingTrace trace = make_synthetic_trace({.tokens = 0}, 1);
  const Cluster cluster = cluster_of({1, 2});
  const StepSimulation step = simulate_step(trace, cluster, linear(trace, cluster), {.chunks = 4});
  EXPECT_EQ(step.seconds, 0);
  EXPECT_EQ(step.compute_utilisation(), 0);
  EXPECT_EQ(step.card_utilisation(), 0);
}

TEST(SimulationTest, ReachesThousandsOfRanks) {
  Cluster cluster = uniform_cluster(256, 8);
  const RoutingTrace trace =
      make_synthetic_trace({.experts = 2048, .choices = 4, .tokens = 4096, .cluster = 8}, 1);
  const StepSimulation step =
      simulate_step(trace, cluster, linear(trace, cluster), {.rule = PivotRule::gate, .chunks = 2});
  EXPECT_GT(step.seconds, 0);
  EXPECT_GE(step.seconds, step.all.inter.most_s);
}

TEST(SimulationTest, WhatCannotBeIsRefused) {
  RoutingTrace trace = make_synthetic_trace({}, 1);
  const Cluster cluster = cluster_of({1, 1});
  for (const int chunks : {0, kMostChunks + 1}) {
    expect_error<ConfigError>([&] { seconds(trace, cluster, {.chunks = chunks}); },
                              {std::to_string(chunks) + " chunks"});
  }
  trace.sub_layers[1].speculative_ids.clear();
  expect_error<ConfigError>([&] { seconds(trace, cluster, {}); }, {"speculative", "block 0"});
  trace.home.assign(static_cast<std::size_t>(trace.tokens), 2);
  expect_error<ConfigError>([&] { seconds(trace, cluster); }, {"rank 2", "2 ranks"});
}

TEST(SimulationTest, TokensAreSpreadOverRanksAndChunks) {
  const RoutingTrace trace = make_synthetic_trace({.tokens = 10}, 1);
  const TokenSplit split = split_tokens(trace, 4, 2);
  EXPECT_EQ(split.home, (std::vector<std::int32_t>{0, 0, 0, 1, 1, 2, 2, 2, 3, 3}));
  EXPECT_EQ(split.chunk, (std::vector<std::int32_t>{0, 0, 1, 0, 1, 0, 0, 1, 0, 1}));
}

}  // namespace
}  // namespace cartesian::test
