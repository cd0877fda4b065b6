#include "comm/traffic_counter.h"

#include <gtest/gtest.h>

namespace cartesian {
namespace {

TEST(TrafficCounter, CountsByScopeAndNotToOneself) {
  Metrics metrics;
  TrafficCounter traffic(&metrics, 1, 4);
  traffic.count(0, 5);
  traffic.set_topology(Topology(std::vector<int>{0, 0, 1, 1}));
  traffic.count(0, 10);
  traffic.count(1, 1000);
  traffic.count(2, 20);
  traffic.count(3, 30);
  auto counters = metrics.counters();
  EXPECT_EQ(counters["cartesian_transport_bytes_total{scope=\"unknown\"}"], 5);
  EXPECT_EQ(counters["cartesian_transport_bytes_total{scope=\"intra\"}"], 10);
  EXPECT_EQ(counters["cartesian_transport_bytes_total{scope=\"inter\"}"], 50);
  EXPECT_EQ(counters["cartesian_transport_messages_total{scope=\"intra\"}"], 1);
  EXPECT_EQ(counters["cartesian_transport_messages_total{scope=\"inter\"}"], 2);
}

TEST(TrafficCounter, NeedsNoMetrics) {
  TrafficCounter traffic(nullptr, 0, 2);
  traffic.set_topology(Topology::single_node(2));
  traffic.count(1, 10);
}

}  // namespace
}  // namespace cartesian
