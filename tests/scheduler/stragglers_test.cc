#include "scheduler/stragglers.h"

#include <gtest/gtest.h>

namespace cartesian {
namespace {

JobShape job(int nodes, int ranks_a_node) {
  JobShape shape;
  shape.ranks = nodes * ranks_a_node;
  for (int rank = 0; rank < shape.ranks; ++rank) {
    shape.node_of_rank.push_back(rank / ranks_a_node);
    shape.hosts.push_back("host" + std::to_string(rank / ranks_a_node));
  }
  return shape;
}

StragglerEvidence even(const JobShape& shape, int nodes, double compute, double wait) {
  StragglerEvidence evidence;
  evidence.steps = 10;
  evidence.compute_s.assign(static_cast<std::size_t>(shape.ranks), compute);
  evidence.node_waits_s.assign(static_cast<std::size_t>(nodes * nodes), wait);
  return evidence;
}

TEST(Stragglers, NoneAmongEqualsNorWithoutSteps) {
  const JobShape shape = job(4, 2);
  EXPECT_TRUE(find_stragglers(shape, even(shape, 4, 5, 1)).empty());
  EXPECT_TRUE(find_stragglers(shape, even(shape, 4, 0, 0)).empty());
  StragglerEvidence evidence = even(shape, 4, 5, 1);
  evidence.compute_s[2] = 50;
  evidence.steps = 0;
  EXPECT_TRUE(find_stragglers(shape, evidence).empty());
}

TEST(Stragglers, RanksThatComputeForLonger) {
  const JobShape shape = job(4, 2);
  StragglerEvidence evidence = even(shape, 4, 5, 0.1);
  evidence.compute_s[3] = 10;
  evidence.compute_s[6] = 7;
  evidence.compute_s[7] = 6.4;  // 1.28 times the median
  // The others wait for the node of rank 3: that is no link.
  for (const std::size_t a : {0, 2, 3}) {
    evidence.node_waits_s[a * 4 + 1] = 5;
  }
  const std::vector<Straggler> found = find_stragglers(shape, evidence);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0], (Straggler{Straggler::Kind::rank, 3, 2, 1}));
  EXPECT_EQ(found[1], (Straggler{Straggler::Kind::rank, 6, 1.4, 0.7}));
  EXPECT_EQ(describe(found[0], shape),
            "rank 3 (host1) computes for 1 s a step, 2.0 times the median rank");
}

TEST(Stragglers, ANodeBehindASlowLink) {
  const JobShape shape = job(4, 2);
  StragglerEvidence evidence = even(shape, 4, 10, 1);
  for (std::size_t other = 0; other < 4; ++other) {
    evidence.node_waits_s[other * 4 + 2] = 6;
    evidence.node_waits_s[2 * 4 + other] = 4;
  }
  // With: (3 * 6 + 3 * 4) / 6 = 5; without: 1; a rank of node 2 for three nodes: 5 * 3 / 2 / 10.
  const std::vector<Straggler> found = find_stragglers(shape, evidence);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0], (Straggler{Straggler::Kind::link, 2, 5, 0.75}));
  EXPECT_EQ(describe(found[0], shape),
            "node 2 (host2): its link makes a rank wait 0.75 s a step, 5.0 times as long as the "
            "others");
}

TEST(Stragglers, ShortWaitsAndTwoNodesNameNoLink) {
  const JobShape three = job(3, 1);
  StragglerEvidence evidence = even(three, 3, 10, 0.01);
  for (std::size_t other = 0; other < 3; ++other) {
    evidence.node_waits_s[other * 3 + 1] = evidence.node_waits_s[3 + other] = 0.05;
  }
  EXPECT_TRUE(find_stragglers(three, evidence).empty());
  const JobShape two = job(2, 2);
  evidence = even(two, 2, 1, 20);
  EXPECT_TRUE(find_stragglers(two, evidence).empty());
}

}  // namespace
}  // namespace cartesian
