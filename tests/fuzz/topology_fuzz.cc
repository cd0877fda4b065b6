#include <gtest/gtest.h>

#include <cmath>

#include "planner/cluster.h"
#include "tests/fuzz/memory_files.h"
#include "tests/fuzz/mutator.h"

namespace cartesian {
namespace {

void expect_usable(const LinkClass& link) {
  EXPECT_TRUE(std::isfinite(link.bytes_per_s) && link.bytes_per_s > 0);
  EXPECT_TRUE(std::isfinite(link.latency_s) && link.latency_s >= 0);
}

TEST(Fuzz, Topology) {
  const std::vector<std::string> seeds = {
      "nodes = 4\nranks_per_node = 8\nmemory_gib = 40\ntflops = 312\n\n"
      "[intra]\nbandwidth_gb_s = 300\nlatency_us = 5\n\n"
      "[inter]\nbandwidth_gb_s = 25.5\nlatency_us = 12\n",
      "node_sizes = [8, 8, 4]\ninter = {bandwidth_gb_s = 1e2}\n", "nodes = 0x10\n",
      "nodes = 2\nranks_per_node = 2\nrank_speeds = [1, 0.5, 1, 1]\ncard_speeds = [1, 1e-2]\n"};
  const std::vector<std::string> words = {"nodes = ",
                                          "node_sizes = [",
                                          "ranks_per_node",
                                          "[inter]\n",
                                          "[intra]\n",
                                          "true",
                                          "1048576",
                                          "1048577",
                                          "9223372036854775807",
                                          "0b1",
                                          "0o7",
                                          "nan",
                                          "inf",
                                          "-inf",
                                          "1e308",
                                          "5e-324",
                                          "1979-05-27",
                                          "\"\"\"",
                                          "'''",
                                          "\n",
                                          " = ",
                                          "a.b.c",
                                          "[[inter]]\n",
                                          "\\u0000",
                                          "[[[[[[[[[[[[",
                                          "{a={a={a={a=",
                                          "memory_gib = 1e300\n",
                                          "tflops = 1e300\n",
                                          "rank_speeds = [",
                                          "card_speeds = [",
                                          "[4, 4]"};
  fuzz(Mutator(seeds, words), [](const std::string& input) {
    MemoryFiles files;
    files.set("cluster.toml", input);
    const Cluster cluster = load_cluster(files, "cluster.toml");
    EXPECT_GE(cluster.topology.nodes(), 1);
    EXPECT_GE(cluster.topology.ranks(), cluster.topology.nodes());
    expect_usable(cluster.intra);
    expect_usable(cluster.inter);
    EXPECT_TRUE(std::isfinite(cluster.memory_bytes) && cluster.memory_bytes >= 0);
    EXPECT_TRUE(std::isfinite(cluster.flops) && cluster.flops > 0);
    for (const double share : load_shares(cluster)) {
      EXPECT_TRUE(std::isfinite(share) && share > 0);
    }
  });
}

}  // namespace
}  // namespace cartesian
