#include "runtime/top/job_snapshot.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/runtime/top/job_readings.h"

namespace cartesian {
namespace {

JobSnapshot take(const std::string& text) {
  return take_snapshot(parse_metrics_text(text, "text"), "text");
}

TEST(JobSnapshot, TypedValues) {
  const JobSnapshot job = take(job_text(40));
  EXPECT_EQ(job.version, "0.1.0");
  EXPECT_EQ(job.ranks, 2);
  EXPECT_EQ(job.nodes, 2);
  EXPECT_EQ(job.ranks_by_health.at("alive"), 2);
  EXPECT_EQ(job.step, 40);
  EXPECT_EQ(job.step_age_s, 0.25);
  EXPECT_EQ(job.loss, 3.25);
  EXPECT_EQ(job.checkpoint_step, 10);
  EXPECT_EQ(job.step_count, 80);
  EXPECT_EQ(job.step_s, 40);
  ASSERT_EQ(job.phase_s.size(), 4);
  EXPECT_EQ(job.phase_s[1], (std::pair<std::string, double>("experts", 20)));
  EXPECT_EQ(job.traffic.at("inter").bytes, 24e6);
  EXPECT_EQ(job.traffic.at("inter").rows, 100'000);
  EXPECT_EQ(job.experts.at({0, "A"}).tokens,
            (std::map<int, double>{{0, 16000}, {1, 8000}, {2, 8000}, {3, 0}}));
  EXPECT_EQ(job.experts.at({0, "A"}).imbalance, 2);
  EXPECT_EQ(job.experts.at({0, "A"}).dead, 1);
  EXPECT_TRUE(job.experts.at({0, "B"}).tokens.empty());
  EXPECT_EQ(job.by_rank.at(1).host, "beta");
  EXPECT_EQ(job.by_rank.at(1).straggler_ratio, 1.14);
  EXPECT_EQ(job.by_rank.at(1).waited_for_s, 5);
  EXPECT_EQ(job.plans.at("adopted"), 3);
  EXPECT_EQ(job.migrated_bytes, 1.5e6);
}

TEST(JobSnapshot, NamedStragglers) {
  const JobSnapshot job = take(
      "cartesian_step 1\n"
      "cartesian_slow_rank_factor{rank=\"3\",host=\"gamma\"} 1.5\n"
      "cartesian_slow_link_factor{node=\"1\",host=\"beta\"} 2.25\n");
  EXPECT_EQ(job.slow_ranks.at(3).host, "gamma");
  EXPECT_EQ(job.slow_ranks.at(3).factor, 1.5);
  EXPECT_EQ(job.slow_links.at(1).host, "beta");
  EXPECT_EQ(job.slow_links.at(1).factor, 2.25);
}

TEST(JobSnapshot, WhatIsNotToldIsNotKnown) {
  const JobSnapshot job = take(
      "cartesian_step -1\ncartesian_loss NaN\ncartesian_ranks +Inf\n"
      "cartesian_rank_step_seconds{rank=\"x\",host=\"h\"} 1\n"
      "cartesian_rank_step_seconds{rank=\"-1\",host=\"h\"} 1\n"
      "cartesian_expert_tokens_total{group=\"A\",expert=\"0\"} 1\n"
      "something_else 5\n");
  EXPECT_EQ(job.step, -1);
  EXPECT_EQ(job.loss, std::nullopt);
  EXPECT_EQ(job.ranks, std::nullopt);
  EXPECT_TRUE(job.by_rank.empty());
  EXPECT_TRUE(job.experts.empty());
}

TEST(JobSnapshot, RefusesWhatIsNoJob) {
  EXPECT_THROW(take("up 1\n"), FormatError);
  EXPECT_THROW(take(""), FormatError);
}

TEST(JobSnapshot, BeginsAnew) {
  const JobSnapshot last = job_reading(40, 1);
  EXPECT_FALSE(began_anew(last, last));
  EXPECT_FALSE(began_anew(last, job_reading(41, 2)));
  EXPECT_TRUE(began_anew(last, job_reading(39, 2)));
  JobSnapshot next = job_reading(41, 2);
  next.source = "other";
  EXPECT_TRUE(began_anew(last, next));
  next = job_reading(41, 2);
  next.traffic["inter"].bytes = 1;
  EXPECT_TRUE(began_anew(last, next));
}

TEST(PlacementSummary, Counts) {
  const PlacementSummary summary = parse_placement_summary(
      R"({"version": 1, "layers": 1, "groups": 2, "experts": 2, "ranks": 2,
          "replicas": [[[[0, 1], [0]], [[0], [1]]]], "plan": {"plan_version": 4}})",
      "placement");
  EXPECT_EQ(
      summary,
      (PlacementSummary{.layers = 1, .groups = 2, .experts = 2, .replicas = 5, .plan_version = 4}));
}

TEST(PlacementSummary, Refuses) {
  for (const char* text :
       {"", "[]", R"({"layers": 1})", R"({"layers": -1, "groups": 1, "experts": 1})",
        R"({"layers": 1, "groups": 1, "experts": 1, "replicas": [], "plan": {"plan_version": 0}})",
        R"({"layers": 0, "groups": 1, "experts": 1, "replicas": [], "plan": {}})"}) {
    EXPECT_THROW(parse_placement_summary(text, "placement"), FormatError) << text;
  }
}

}  // namespace
}  // namespace cartesian
