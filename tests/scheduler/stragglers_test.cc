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
  evidence.step_s = 1;
  evidence.compute_s.assign(static_cast<std::size_t>(shape.ranks), compute);
  evidence.tokens.assign(static_cast<std::size_t>(shape.ranks), 64);
  evidence.nodes.assign(static_cast<std::size_t>(nodes), {wait, wait, wait});
  return evidence;
}

TEST(Stragglers, NoneAmongEquals) {
  const JobShape shape = job(4, 2);
  EXPECT_TRUE(find_stragglers(shape, even(shape, 4, 0.5, 0.1)).empty());
  EXPECT_TRUE(find_stragglers(shape, even(shape, 4, 0, 0)).empty());
}

TEST(Stragglers, RanksThatComputeForLonger) {
  const JobShape shape = job(4, 2);
  StragglerEvidence evidence = even(shape, 4, 0.5, 0.01);
  evidence.compute_s[3] = 1;
  evidence.compute_s[6] = 0.7;
  evidence.compute_s[7] = 0.64;  // 1.28 times the median
  // Both ends of the link of rank 3's node wait: that is the rank's doing.
  evidence.nodes[1] = {0.1, 0.1, 0.01};
  const std::vector<Straggler> found = find_stragglers(shape, evidence);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0], (Straggler{Straggler::Kind::rank, 3, 2, 1}));
  EXPECT_EQ(found[1], (Straggler{Straggler::Kind::rank, 6, 1.4, 0.7}));
  EXPECT_EQ(describe(found[0], shape),
            "rank 3 (host1) computes for 1 s a step, experts not counted: 2.0 times the median "
            "rank");
  evidence.step_s = 10;  // of which the half second of rank 3 is a twentieth
  EXPECT_TRUE(find_stragglers(shape, evidence).empty());
}

TEST(Stragglers, RanksAreComparedWithThoseThatHaveAsManyTokens) {
  const JobShape shape = job(3, 2);
  StragglerEvidence evidence = even(shape, 3, 0.2, 0);
  evidence.tokens = {128, 128, 128, 64, 64, 64};
  evidence.compute_s = {0.4, 0.4, 0.4, 0.2, 0.2, 0.2};
  EXPECT_TRUE(find_stragglers(shape, evidence).empty());
  evidence.compute_s = {0.4, 0.8, 0.4, 0.2, 0.2, 0.6};
  const std::vector<Straggler> found = find_stragglers(shape, evidence);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0], (Straggler{Straggler::Kind::rank, 1, 2, 0.8}));
  EXPECT_EQ(found[1].number, 5);  // the median of all six is 0.4
  EXPECT_NEAR(found[1].factor, 1.5, 1e-12);
}

TEST(Stragglers, ANodeBehindASlowLink) {
  const JobShape shape = job(4, 2);
  StragglerEvidence evidence = even(shape, 4, 0.1, 0.05);
  evidence.nodes[2] = {.of_it = 0.2, .for_it = 0.3, .elsewhere = 0.04};
  const std::vector<Straggler> found = find_stragglers(shape, evidence);
  ASSERT_EQ(found.size(), 1U);
  // A rank of another node waits for each of node 2's two.
  EXPECT_EQ(found[0], (Straggler{Straggler::Kind::link, 2, 5, 0.6}));
  EXPECT_EQ(describe(found[0], shape),
            "node 2 (host2): others wait 0.6 s a step for its link, at whose ends ranks wait 5.0 "
            "times as long as elsewhere");
}

TEST(Stragglers, WhoIsLateWaitsForNobodyAndIsNoSlowLink) {
  const JobShape shape = job(4, 2);
  StragglerEvidence evidence = even(shape, 4, 0.1, 0.05);
  evidence.nodes[2] = {.of_it = 0.02, .for_it = 0.3, .elsewhere = 0.04};
  EXPECT_TRUE(find_stragglers(shape, evidence).empty());
}

TEST(Stragglers, ShortWaitsAndTwoNodesNameNoLink) {
  const JobShape three = job(3, 1);
  StragglerEvidence evidence = even(three, 3, 1, 0.01);
  evidence.nodes[1] = {0.05, 0.05, 0.01};
  EXPECT_TRUE(find_stragglers(three, evidence).empty());
  const JobShape two = job(2, 2);
  evidence = even(two, 2, 0.1, 0.4);
  evidence.nodes[1] = {0.4, 0.4, 0};
  EXPECT_TRUE(find_stragglers(two, evidence).empty());
}

TEST(Stragglers, WhatAProcessorsOtherThreadsTakeIsNotWorthAWord) {
  const JobShape shape = job(4, 1);
  StragglerEvidence evidence = even(shape, 4, 0.005, 0.0005);
  evidence.step_s = 0.02;
  evidence.compute_s[1] = 0.0088;
  evidence.nodes[2] = {.of_it = 0.005, .for_it = 0.005, .elsewhere = 0.0005};
  const std::vector<Straggler> link = find_stragglers(shape, evidence);
  ASSERT_EQ(link.size(), 1U);  // 4.5 ms
  EXPECT_EQ(link[0].kind, Straggler::Kind::link);
  evidence.compute_s[1] = 0.0092;
  evidence.nodes[2] = {.of_it = 0.004, .for_it = 0.004, .elsewhere = 0.0005};
  const std::vector<Straggler> rank = find_stragglers(shape, evidence);
  ASSERT_EQ(rank.size(), 1U);  // 4.2 ms, and 3.5 ms
  EXPECT_EQ(rank[0].kind, Straggler::Kind::rank);
}

TEST(Stragglers, NewsAreOfThoseThatComeAndGo) {
  const JobShape shape = job(4, 2);
  const Straggler rank{Straggler::Kind::rank, 3, 2, 1};
  const Straggler link{Straggler::Kind::link, 3, 5, 0.5};
  EXPECT_EQ(straggler_news({}, {rank}, shape),
            std::vector<std::string>{"straggler: " + describe(rank, shape)});
  Straggler worse = rank;
  worse.factor = 3;
  EXPECT_TRUE(straggler_news({rank}, {worse}, shape).empty());
  EXPECT_EQ(straggler_news({rank}, {link}, shape),
            (std::vector<std::string>{"straggler: " + describe(link, shape),
                                      "straggler: rank 3 (host1) is as fast as the others again"}));
  EXPECT_EQ(straggler_news({link}, {}, shape),
            std::vector<std::string>{"straggler: node 3 (host3) is as fast as the others again"});
  EXPECT_EQ(straggler_news({link}, {}, shape, /*blind=*/true),
            std::vector<std::string>{
                "straggler: node 3 (host3) is forgotten: steps lack the reports of some ranks"});
}

}  // namespace
}  // namespace cartesian
