#include "planner/timeline.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/json.h"
#include "planner/perfetto.h"
#include "planner/simulation.h"
#include "planner/synthetic_trace.h"

namespace cartesian::test {
namespace {

Topology pairs() { return Topology::from_node_sizes(std::vector<int>{2, 2}, 4); }

TimelineSpan span_of(double start_s, double end_s, int chunk) {
  return {.kind = ResourceKind::link_out,
          .unit = 1,
          .phase = StepPhase::a_dispatch,
          .layer = 0,
          .chunk = chunk,
          .start_s = start_s,
          .end_s = end_s,
          .bytes = 8,
          .messages = 1};
}

TEST(TimelineTest, WhatGoesOnIsOneSpan) {
  Timeline timeline(pairs(), std::vector<int>{0});
  timeline.add(span_of(0, 1, 0));
  timeline.add(span_of(1, 2, 0));
  timeline.add(span_of(2, 3, 1));
  timeline.add(span_of(4, 5, 1));
  ASSERT_EQ(timeline.spans().size(), 3U);
  EXPECT_EQ(timeline.spans()[0].end_s, 2);
  EXPECT_EQ(timeline.spans()[0].bytes, 16);
  EXPECT_EQ(timeline.spans()[0].messages, 2);
  EXPECT_EQ(timeline.spans()[2].start_s, 4);
}

TEST(TimelineTest, OtherNodesAreLeftOut) {
  Timeline timeline(pairs(), std::vector<int>{1});
  timeline.add(span_of(0, 1, 0));
  TimelineSpan card = span_of(0, 1, 0);
  card.kind = ResourceKind::card_in;
  timeline.add(card);
  ASSERT_EQ(timeline.spans().size(), 1U);
  EXPECT_EQ(timeline.spans()[0].kind, ResourceKind::card_in);
}

TEST(PerfettoTest, IsJsonWhoseThreadsDoOneThingAtATime) {
  const RoutingTrace trace = make_synthetic_trace({.layers = 2, .experts = 12}, 3);
  Cluster cluster = uniform_cluster(3, 2);
  cluster.flops = 1e9;
  const Placement placement = Placement::linear(placement_shape(trace, 6), 6);
  const StepSimulation step =
      simulate_step(trace, cluster, placement, {.chunks = 2, .timeline_nodes = {0, 2}});
  const nlohmann::json json = parse_json(to_perfetto(step.spans, cluster.topology), "timeline");
  std::map<std::pair<int, int>, std::string> names;
  std::map<std::pair<int, int>, double> end;
  std::size_t spans = 0;
  for (const nlohmann::json& event : json.at("traceEvents")) {
    const std::pair<int, int> thread(event.at("pid"), event.at("tid"));
    EXPECT_TRUE(thread.first == 1 || thread.first == 3);
    if (event.at("name") == "thread_name") {
      EXPECT_TRUE(names.emplace(thread, event.at("args").at("name")).second);
    }
    if (event.at("ph") == "X") {
      ++spans;
      EXPECT_TRUE(names.contains(thread));
      EXPECT_GE(event.at("ts").get<double>(), end[thread] - 1e-6);
      EXPECT_GE(event.at("dur").get<double>(), 0);
      end[thread] = event.at("ts").get<double>() + event.at("dur").get<double>();
    }
  }
  EXPECT_EQ(spans, step.spans.size());
  EXPECT_EQ(names.size(), 2U * (2 + 2 * 3));
}

TEST(PerfettoTest, OfNothingIsJson) {
  EXPECT_TRUE(parse_json(to_perfetto({}, pairs()), "timeline").at("traceEvents").empty());
}

}  // namespace
}  // namespace cartesian::test
