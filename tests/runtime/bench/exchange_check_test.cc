// That a benchmark's validation sees what is wrong: results and rows are altered after a good step.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "comm/local_transport.h"
#include "planner/synthetic_trace.h"
#include "runtime/bench/exchange_journey.h"
#include "runtime/bench/exchange_measure.h"
#include "runtime/bench/group_meter.h"

namespace cartesian {
namespace {

constexpr int kRanks = 1;
constexpr std::int64_t kTokens = 20;

ExchangeCase small_case() {
  const RoutingTrace trace = make_synthetic_trace(
      {.experts = 6, .choices = 2, .tokens = kTokens, .prediction = 0.5}, /*seed=*/5);
  return {.topology = Topology::single_node(kRanks),
          .placement = Placement::linear(placement_shape(trace, kRanks), kRanks),
          .routing = routing_of_layer(trace, 0, kTokens, kRanks),
          .tokens = kTokens,
          .hidden = 7};
}

class ExchangeCheck : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NO_THROW(measure_paths(*transport_, clock_, {{path_.get()}}, 1));
    ASSERT_NO_THROW(check_results(case_, *path_, 0, "it"));
  }

  std::string complaint() const {
    try {
      check_results(case_, *path_, 0, "it");
    } catch (const Error& error) {
      return error.what();
    }
    return "none";
  }

  Metrics metrics_;
  SteadyClock clock_;
  HostAllocator allocator_;
  Arena scratch_{allocator_};
  Context context_{.scratch = scratch_, .metrics = metrics_, .clock = clock_};
  ExchangeCase case_ = small_case();
  std::unique_ptr<Transport> transport_ =
      std::move(make_local_transports(kRanks, {.metrics = &metrics_}).front());
  std::unique_ptr<ExchangePath> path_ = make_exchange_journey(case_, *transport_, context_);
};

TEST_F(ExchangeCheck, SeesAnOutputThatIsOff) {
  float& value = path_->outputs().front().data<float>()[3 * case_.hidden + 4];
  value += 0.001F * std::abs(value) + 0.001F;
  EXPECT_TRUE(complaint().starts_with("it: the output of token 3, column 4, is ")) << complaint();
}

TEST_F(ExchangeCheck, SeesAGradientThatIsNoNumber) {
  path_->input_gradients().front().data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(complaint().starts_with("it: the gradient of token 0, column 0, is nan"))
      << complaint();
}

TEST_F(ExchangeCheck, SeesAGateOfTheWrongExpert) {
  std::int16_t& expert = case_.routing.sub_layers[1].ids[2 * 6];
  expert = static_cast<std::int16_t>((expert + 1) % 3);
  EXPECT_NE(complaint(), "none");
}

TEST_F(ExchangeCheck, SeesRowsTooManyAndTooFew) {
  EXPECT_NO_THROW(check_rows(case_, {}, case_.flow, "it"));
  EXPECT_THROW(check_rows(case_, {.rows = {1, 0}, .bytes = {}}, case_.flow, "it"), Error);
  EXPECT_THROW(check_rows(case_, {.rows = {0, 2}, .bytes = {}}, case_.flow, "it"), Error);
}

TEST(PathReport, SumsRanksAndFindsTheBusiestNode) {
  const PathReport report{.repetitions = {{}, {}, {}},
                          .sent = {{.rows = {1, 2}, .bytes = {10, 20}},
                                   {.rows = {3, 4}, .bytes = {30, 40}},
                                   {.rows = {5, 5}, .bytes = {0, 50}}},
                          .sent_by_group = {}};
  EXPECT_EQ(report.sum().rows, (std::array<double, 2>{9, 11}));
  EXPECT_EQ(report.sum().bytes, (std::array<double, 2>{40, 110}));
  const SentTraffic busiest = report.busiest_node(Topology({0, 0, 1}));
  EXPECT_EQ(busiest.rows[1], 6);
  EXPECT_EQ(busiest.bytes[1], 60);
}

TEST(BusiestLink, IsFoundGroupByGroup) {
  // Two groups between three ranks, of which the first two share a node.
  const std::vector<std::vector<double>> sent = {
      {1, 100, 10, 0, 0, 1}, {100, 0, 5, 0, 0, 0}, {2, 1, 7, 20, 30, 0}};
  // First out of node 0, 10 + 5, then into it, 20 + 30.
  EXPECT_EQ(busiest_link_bytes(sent, Topology({0, 0, 1})), 15 + 50);
  EXPECT_EQ(busiest_link_bytes(sent, Topology({0, 0, 0})), 0);
}

TEST(RowsNeeded, AreOneForEveryRankThatATokenVisits) {
  RoutingTrace trace;
  trace.tokens = 2;
  trace.experts = 4;
  trace.sub_layers = {{.block = 0,
                       .group = 0,
                       .choices = 2,
                       .ids = {0, 1, 3, -1},
                       .gates = {1, 1, 1, 0},
                       .speculative_ids = {}},
                      {.block = 0,
                       .group = 1,
                       .choices = 2,
                       .ids = {0, 2, 1, 3},
                       .gates = {1, 1, 1, 1},
                       .speculative_ids = {}}};
  const ExchangeCase measured{.topology = Topology::single_node(2),
                              .placement = Placement::linear({1, 2, 4, 2}, 2),
                              .routing = routing_of_layer(trace, 0, 1, 2),
                              .tokens = 1};
  EXPECT_EQ(rows_needed(measured), (std::array<std::int64_t, 2>{2, 4}));
}

}  // namespace
}  // namespace cartesian
