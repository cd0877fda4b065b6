#include "scheduler/job_metrics.h"

#include <gtest/gtest.h>
#include <prometheus/metric_family.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <optional>
#include <regex>

#include "base/error.h"
#include "tests/scheduler/sample_job.h"
#include "tests/support/expect_error.h"

namespace cartesian {
namespace {

constexpr int kRanks = 4;

/// By name and labels, such as `cartesian_x{layer=0,group=A}`.
std::map<std::string, double> values_of(const JobMetrics& metrics,
                                        const ControlCounts& counts = {}) {
  std::map<std::string, double> values;
  for (const prometheus::MetricFamily& family : families(metrics.figures(), counts)) {
    for (const prometheus::ClientMetric& metric : family.metric) {
      std::string name = family.name;
      for (std::size_t i = 0; i < metric.label.size(); ++i) {
        name += (i == 0 ? "{" : ",") + metric.label[i].name + "=" + metric.label[i].value;
      }
      name += metric.label.empty() ? "" : "}";
      values[name] = family.type == prometheus::MetricType::Counter ? metric.counter.value
                                                                    : metric.gauge.value;
    }
  }
  return values;
}

class JobMetricsTest : public ::testing::Test {
 protected:
  /// One layer, A and B of two experts: A0 and B0 on node 0, A1 and B1 on node 1.
  JobMetricsTest() { shape_ = testing_job::shape(kRanks, {1, 2, 2}); }

  StepReport report(int rank, std::int64_t step) const {
    StepReport report = testing_job::report(shape_, rank, step);
    report.loads = {6, 2, 4, 4};
    report.co_activation = {5, 1, 1, 1};
    return report;
  }
  void add_step(JobMetrics& metrics, std::int64_t step) const {
    for (int rank = 0; rank < kRanks; ++rank) {
      metrics.add(rank, report(rank, step));
    }
  }
  std::shared_ptr<const Placement> placement(std::vector<std::vector<int>> replicas) const {
    return std::make_shared<const Placement>(PlacementShape{1, 2, 2, kRanks}, std::move(replicas));
  }

  FakeClock clock_;
  JobShape shape_;
};

TEST_F(JobMetricsTest, CountersSumOverRanksAndSteps) {
  JobMetrics metrics(shape_, {"all", 2}, clock_);
  for (std::int64_t step = 0; step < 5; ++step) {  // more than the window holds
    add_step(metrics, step);
  }
  const auto values = values_of(metrics);
  EXPECT_EQ(values.at("cartesian_reports_total"), 20);
  EXPECT_EQ(values.at("cartesian_tokens_total"), 5 * (100 + 101 + 102 + 103));
  EXPECT_EQ(values.at("cartesian_transport_bytes_total{scope=intra}"), 20'000);
  EXPECT_EQ(values.at("cartesian_transport_bytes_total{scope=inter}"), 40'000);
  EXPECT_EQ(values.at("cartesian_exchange_rows_total{scope=intra}"), 200);
  EXPECT_EQ(values.at("cartesian_exchange_rows_total{scope=inter}"), 400);
  EXPECT_EQ(values.at("cartesian_pivots_total"), 160);
  EXPECT_EQ(values.at("cartesian_pivot_hits_total"), 120);
  EXPECT_EQ(values.at("cartesian_phase_seconds_total{phase=a_experts}"), 2.5);
  EXPECT_EQ(values.at("cartesian_exposed_communication_seconds_total"), 5 * 1.5);
  EXPECT_EQ(values.at("cartesian_rank_step_seconds{rank=2,host=host1}"), 3);
  EXPECT_EQ(values.at("cartesian_rank_wait_seconds_total{rank=2,host=host1}"), 2.5);
  EXPECT_EQ(values.at("cartesian_rank_compute_seconds_total{rank=2,host=host1}"), 12.5);
  EXPECT_EQ(values.at("cartesian_rank_waited_for_seconds_total{rank=2,host=host1}"), 10);
  EXPECT_EQ(values.at("cartesian_expert_tokens_total{layer=0,group=A,expert=0}"), 120);
  EXPECT_EQ(values.at("cartesian_expert_tokens_total{layer=0,group=B,expert=1}"), 80);
}

TEST_F(JobMetricsTest, StepSecondsAreAHistogram) {
  JobMetrics metrics(shape_, {}, clock_);
  add_step(metrics, 0);  // 1, 2, 3 and 4 seconds
  for (const prometheus::MetricFamily& family : families(metrics.figures(), {})) {
    if (family.name == "cartesian_step_seconds") {
      const auto& histogram = family.metric.at(0).histogram;
      EXPECT_EQ(histogram.sample_count, 4U);
      EXPECT_EQ(histogram.sample_sum, 10);
      for (const auto& bucket : histogram.bucket) {
        const std::uint64_t below =
            bucket.upper_bound < 1 ? 0 : static_cast<std::uint64_t>(bucket.upper_bound);
        EXPECT_EQ(bucket.cumulative_count, std::min<std::uint64_t>(4, below)) << bucket.upper_bound;
      }
    }
  }
}

TEST_F(JobMetricsTest, GaugesAreOverTheWindow) {
  JobMetrics metrics(shape_, {"none", 2}, clock_);
  StepReport early = report(0, 0);
  early.loads = {0, 1000, 0, 1000};
  early.inter_rows = 100'000;
  early.wait_s = early.step_s;
  metrics.add(0, early);
  add_step(metrics, 7);
  metrics.add(1, early);  // late: below the window
  const auto values = values_of(metrics);
  EXPECT_DOUBLE_EQ(values.at("cartesian_expert_balancedness{layer=0,group=A}"), 4.0 / 6);
  EXPECT_DOUBLE_EQ(values.at("cartesian_expert_imbalance{layer=0,group=A}"), 1.5);
  EXPECT_DOUBLE_EQ(values.at("cartesian_expert_load_cv{layer=0,group=A}"), 0.5);
  EXPECT_DOUBLE_EQ(values.at("cartesian_expert_load_entropy{layer=0,group=A}"),
                   -(0.75 * std::log(0.75) + 0.25 * std::log(0.25)) / std::log(2.0));
  EXPECT_DOUBLE_EQ(values.at("cartesian_expert_balancedness{layer=0,group=B}"), 1);
  EXPECT_EQ(values.at("cartesian_dead_experts{layer=0,group=B}"), 0);
  EXPECT_DOUBLE_EQ(values.at("cartesian_internode_copies_per_token"), 80.0 / 406);
  // Computing takes ranks 1, 1.75, 2.5 and 3.25 s; the middle is 2.125.
  EXPECT_DOUBLE_EQ(values.at("cartesian_rank_straggler_ratio{rank=0,host=host0}"), 1 / 2.125);
  EXPECT_DOUBLE_EQ(values.at("cartesian_rank_straggler_ratio{rank=3,host=host1}"), 3.25 / 2.125);
  EXPECT_EQ(values.at("cartesian_reports_total"), 6);  // counters take what the window does not
  EXPECT_EQ(values.at("cartesian_step"), 7);
}

TEST_F(JobMetricsTest, PlacementsChangeGaugesAndNotCounters) {
  JobMetrics metrics(shape_, {"none", 10}, clock_);
  add_step(metrics, 0);
  auto values = values_of(metrics);
  EXPECT_EQ(values.count("cartesian_colocation_rate{layer=0}"), 0U);
  EXPECT_EQ(values.count("cartesian_rank_load_imbalance{layer=0}"), 0U);
  EXPECT_EQ(values.count("cartesian_dedup_factor"), 0U);

  metrics.set_placement(placement({{0}, {2}, {1}, {3}}));
  add_step(metrics, 1);
  values = values_of(metrics);
  EXPECT_DOUBLE_EQ(values.at("cartesian_colocation_rate{layer=0}"), 6.0 / 8);
  EXPECT_DOUBLE_EQ(values.at("cartesian_rank_load_imbalance{layer=0}"), 1.5);  // 6 2 4 4
  // From node 0 A1 and B1 are elsewhere, from node 1 A0 and B0: 4 (2 * 6 + 2 * 10) rows, 80 sent.
  EXPECT_DOUBLE_EQ(values.at("cartesian_dedup_factor"), 128.0 / 80);

  metrics.set_placement(placement({{0, 2}, {1, 3}, {0, 2}, {1, 3}}));
  values = values_of(metrics);
  EXPECT_DOUBLE_EQ(values.at("cartesian_colocation_rate{layer=0}"), 1);
  EXPECT_DOUBLE_EQ(values.at("cartesian_rank_load_imbalance{layer=0}"), 5.0 / 4);
  EXPECT_DOUBLE_EQ(values.at("cartesian_dedup_factor"), 128.0 / 80);  // of the rows that were sent
  EXPECT_EQ(values.at("cartesian_reports_total"), 8);
  EXPECT_EQ(values.at("cartesian_exchange_rows_total{scope=inter}"), 160);
}

TEST_F(JobMetricsTest, RankZeroTellsForTheJob) {
  JobMetrics metrics(shape_, {}, clock_);
  auto values = values_of(metrics);
  EXPECT_EQ(values.at("cartesian_step"), -1);
  EXPECT_EQ(values.at("cartesian_last_checkpoint_step"), -1);
  EXPECT_EQ(values.at("cartesian_plan_version"), 0);
  EXPECT_EQ(values.count("cartesian_loss"), 0U);
  add_step(metrics, 0);
  values = values_of(metrics);
  EXPECT_EQ(values.at("cartesian_loss"), 4.5);
  EXPECT_EQ(values.at("cartesian_gradient_norm"), 1.5);
  EXPECT_EQ(values.at("cartesian_learning_rate"), 0.125);
  EXPECT_EQ(values.at("cartesian_last_checkpoint_step"), 2);
  EXPECT_EQ(values.at("cartesian_plan_version"), 3);
  EXPECT_EQ(values.at("cartesian_plans_total{outcome=adopted}"), 4);
  EXPECT_EQ(values.at("cartesian_plans_total{outcome=rejected}"), 5);
  EXPECT_EQ(values.at("cartesian_plans_total{outcome=failed}"), 6);
  EXPECT_EQ(values.at("cartesian_migrated_bytes_total"), 7000);
}

TEST_F(JobMetricsTest, NodesWaitForNodes) {
  JobMetrics metrics(shape_, {}, clock_);
  StepReport one = report(2, 0);
  one.waits_by_peer = {1, 2, 4, 8};
  metrics.add(2, one);
  one.waits_by_peer.clear();  // not told
  metrics.add(3, one);
  auto values = values_of(metrics);
  EXPECT_EQ(values.at("cartesian_node_wait_seconds_total{node=1,awaited=0}"), 3);
  EXPECT_EQ(values.at("cartesian_node_wait_seconds_total{node=1,awaited=1}"), 12);
  EXPECT_EQ(values.at("cartesian_node_wait_seconds_total{node=0,awaited=1}"), 0);

  JobShape many = testing_job::shape(2 * JobMetricsOptions::kMostNodesInPairs + 1, {1, 2, 2});
  JobMetrics large(many, {}, clock_);
  large.add(0, testing_job::report(many, 0, 0));
  values = values_of(large);
  EXPECT_TRUE(std::ranges::none_of(
      values, [](const auto& value) { return value.first.starts_with("cartesian_node_wait"); }));
}

TEST_F(JobMetricsTest, StragglersHaveTheirFactors) {
  const JobMetrics metrics(shape_, {}, clock_);
  auto values = values_of(metrics);
  EXPECT_EQ(values.at("cartesian_stragglers{kind=rank}"), 0);
  EXPECT_EQ(values.at("cartesian_stragglers{kind=link}"), 0);
  ControlCounts counts;
  counts.stragglers = {{Straggler::Kind::rank, 0, 1.5, 1},
                       {Straggler::Kind::rank, 3, 2, 1},
                       {Straggler::Kind::link, 1, 4, 0.5}};
  values = values_of(metrics, counts);
  EXPECT_EQ(values.at("cartesian_stragglers{kind=rank}"), 2);
  EXPECT_EQ(values.at("cartesian_stragglers{kind=link}"), 1);
  EXPECT_EQ(values.at("cartesian_slow_rank_factor{rank=0,host=host0}"), 1.5);
  EXPECT_EQ(values.at("cartesian_slow_rank_factor{rank=3,host=host1}"), 2);
  EXPECT_EQ(values.at("cartesian_slow_link_factor{node=1,host=host1}"), 4);
}

TEST_F(JobMetricsTest, AgesAreOfTheClock) {
  clock_.advance(Seconds{100});
  JobMetrics metrics(shape_, {}, clock_);
  clock_.advance(Seconds{5});
  EXPECT_EQ(values_of(metrics).at("cartesian_step_age_seconds"), 5);
  metrics.add(0, report(0, 3));
  clock_.advance(Seconds{2});
  metrics.add(1, report(1, 3));  // no new step
  EXPECT_EQ(values_of(metrics).at("cartesian_step_age_seconds"), 2);
}

TEST_F(JobMetricsTest, ControlCountsAreTold) {
  const JobMetrics metrics(shape_, {}, clock_);
  ControlCounts counts;
  counts.ranks = {0, 2, 1, 0, 1, 0};
  counts.commands = 9;
  counts.commands_late = 2;
  counts.troubles = 5;
  const auto values = values_of(metrics, counts);
  EXPECT_EQ(values.at("cartesian_ranks"), 4);
  EXPECT_EQ(values.at("cartesian_nodes"), 2);
  EXPECT_EQ(values.at("cartesian_ranks_by_health{health=alive}"), 2);
  EXPECT_EQ(values.at("cartesian_ranks_by_health{health=dead}"), 1);
  EXPECT_EQ(values.at("cartesian_commands_total"), 9);
  EXPECT_EQ(values.at("cartesian_commands_late_total"), 2);
  EXPECT_EQ(values.at("cartesian_control_troubles_total"), 5);
}

/// A rank that returns, and tells a step again, counts once; a new process counts anew.
TEST_F(JobMetricsTest, ReconnectsDoNotCountTwice) {
  JobMetrics metrics(shape_, {}, clock_);
  JobState state(shape_, clock_, {}, 1);
  state.observe([&](int rank, const StepReport& report) { metrics.add(rank, report); });
  const auto admit = [&](std::uint64_t instance, std::uint64_t connection) {
    EXPECT_EQ(state.admit(testing_job::hello(1, kRanks, instance), connection).refusal, "");
  };
  admit(7, 1);
  EXPECT_EQ(state.report(1, report(1, 0)), "");
  EXPECT_EQ(state.report(1, report(1, 1)), "");
  state.disconnect(1, 1, "reset by peer");
  admit(7, 2);
  EXPECT_EQ(state.report(1, report(1, 1)), "");
  EXPECT_EQ(state.report(1, report(1, 2)), "");
  EXPECT_EQ(values_of(metrics).at("cartesian_reports_total"), 3);
  EXPECT_EQ(values_of(metrics).at("cartesian_tokens_total"), 303);
  state.disconnect(1, 2, "reset by peer");
  admit(8, 3);
  EXPECT_EQ(state.report(1, report(1, 1)), "");
  EXPECT_EQ(values_of(metrics).at("cartesian_reports_total"), 4);
}

TEST_F(JobMetricsTest, SettingsAreChecked) {
  using Layers = std::vector<int>;
  EXPECT_EQ(expert_layers("none", 4), Layers{});
  EXPECT_EQ(expert_layers("all", 3), (Layers{0, 1, 2}));
  EXPECT_EQ(expert_layers("3,0,3", 4), (Layers{0, 3}));
  for (const char* wrong : {"", "4", "-1", "0,", ",0", "0 1", "some", "0,,1"}) {
    expect_error<ConfigError>([&] { expert_layers(wrong, 4); }, {"metrics.experts", wrong});
  }
  for (const int steps : {0, 10'001}) {
    expect_error<ConfigError>(
        [&] {
          JobMetrics(shape_, {"none", steps}, clock_);
        },
        {"metrics.window_steps", std::to_string(steps)});
  }
}

/// Rows such as | `cartesian_x_total` | counter | bytes | `rank`, `host` | ...
std::map<std::string, std::string> documented() {
  std::ifstream file(CARTESIAN_METRICS_PAGE);
  EXPECT_TRUE(file.is_open());
  const std::regex row(R"(^\| `(cartesian_\w+)` \| (\w+) \|.*)");
  std::map<std::string, std::string> found;
  for (std::string line; std::getline(file, line);) {
    if (std::smatch match; std::regex_match(line, match, row)) {
      EXPECT_TRUE(found.emplace(match[1], match[2]).second) << match[1] << " has two rows";
    }
  }
  return found;
}

TEST_F(JobMetricsTest, TheDocumentListsWhatIsExported) {
  std::map<std::string, std::string> exported;
  for (const prometheus::MetricFamily& family : families(JobFigures(shape_, {}), {})) {
    EXPECT_FALSE(family.help.empty()) << family.name;
    const bool counter = family.type == prometheus::MetricType::Counter;
    EXPECT_EQ(family.name.ends_with("_total"), counter) << family.name;
    exported[family.name] = counter                                            ? "counter"
                            : family.type == prometheus::MetricType::Histogram ? "histogram"
                                                                               : "gauge";
  }
  EXPECT_EQ(documented(), exported);
}

}  // namespace
}  // namespace cartesian
