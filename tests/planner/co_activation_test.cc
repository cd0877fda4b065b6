#include "planner/co_activation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "planner/synthetic_trace.h"
#include "planner/token_sample.h"

namespace cartesian::test {
namespace {

bool chooses(const LayerTrace& layer, std::int64_t token, int expert) {
  const auto ids = layer.groups[as_index(expert / layer.experts)].of(token);
  return std::ranges::find(ids, expert % layer.experts) != ids.end();
}

class CoActivationTest : public testing::TestWithParam<SyntheticTraceSpec> {};

TEST_P(CoActivationTest, CountsAreThoseOfTheTokens) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const RoutingTrace trace = make_synthetic_trace(GetParam(), seed);
    const LayerTrace layer = layers_of(trace)[0];
    const CoActivation all(layer);
    ASSERT_EQ(all.experts(), GetParam().groups * GetParam().experts);
    EXPECT_EQ(all.tokens(), GetParam().tokens);
    EXPECT_EQ(all.loads(), expert_loads(layer));
    for (int a = 0; a < all.experts(); ++a) {
      EXPECT_EQ(all.group_of(a), a / GetParam().experts);
      for (int b = 0; b < all.experts(); ++b) {
        std::int64_t both = 0;
        for (std::int64_t token = 0; token < layer.tokens; ++token) {
          both += chooses(layer, token, a) && chooses(layer, token, b) ? 1 : 0;
        }
        ASSERT_EQ(a == b ? all.load(a) : all.together(a, b), both) << a << ", " << b;
      }
    }
  }
}

TEST_P(CoActivationTest, ChoicesAreThoseOfTheTokens) {
  const RoutingTrace trace = make_synthetic_trace(GetParam(), 4);
  const LayerTrace layer = layers_of(trace)[0];
  const CoActivation all(layer);
  std::int64_t choosing = 0;
  std::int64_t both = 0;
  std::int64_t choices = 0;
  for (std::int64_t token = 0; token < layer.tokens; ++token) {
    std::size_t groups = 0;
    for (const LayerTrace::Group& group : layer.groups) {
      const auto ids = group.of(token);
      const auto real = std::ranges::count_if(ids, [](std::int16_t id) { return id >= 0; });
      groups += real > 0 ? 1 : 0;
      choices += real;
    }
    choosing += static_cast<std::int64_t>(groups);
    both += groups == 2 ? 1 : 0;
  }
  EXPECT_EQ(all.choosing(), choosing);
  EXPECT_EQ(all.choosing_both(), both);
  EXPECT_EQ(std::reduce(all.loads().begin(), all.loads().end()), choices);
  EXPECT_NEAR(all.choices() * static_cast<double>(choosing), static_cast<double>(choices), 1e-6);
}

// Choices that fill whole turns of counters, and some that do not.
INSTANTIATE_TEST_SUITE_P(
    Traces, CoActivationTest,
    testing::Values(SyntheticTraceSpec{}, SyntheticTraceSpec{.groups = 1},
                    SyntheticTraceSpec{.choices = 3, .tokens = 101},
                    SyntheticTraceSpec{.choices = 1, .tokens = 3},
                    SyntheticTraceSpec{.experts = 5, .choices = 5, .tokens = 67, .ragged = true},
                    SyntheticTraceSpec{.experts = 1, .choices = 1, .tokens = 9},
                    SyntheticTraceSpec{.experts = 12, .choices = 3, .cluster = 3, .skew = 1},
                    SyntheticTraceSpec{.tokens = 0}));

TEST(CoActivationEdges, TokensWithoutChoices) {
  RoutingTrace trace = make_synthetic_trace({.tokens = 9}, 1);
  for (RoutingTrace::SubLayer& sub_layer : trace.sub_layers) {
    for (std::size_t i = 0; i < sub_layer.ids.size(); ++i) {
      const std::size_t token = i / 2;
      if (token % 3 == 0 || (token % 3 == 1 && sub_layer.group == 1)) {
        sub_layer.ids[i] = -1;
      }
    }
  }
  const CoActivation all(layers_of(trace)[0]);
  EXPECT_EQ(all.choosing(), 9);
  EXPECT_EQ(all.choosing_both(), 3);
  EXPECT_NEAR(all.choices(), 2, 1e-12);
}

TEST(TokenSampleTest, TokensAreSpreadEvenly) {
  for (const SyntheticTraceSpec& spec :
       {SyntheticTraceSpec{.experts = 100, .choices = 3, .tokens = 100, .ragged = true},
        SyntheticTraceSpec{.groups = 1, .experts = 100, .tokens = 97}}) {
    RoutingTrace trace = make_synthetic_trace(spec, 2);
    // The first choice is the token's number.
    for (RoutingTrace::SubLayer& sub_layer : trace.sub_layers) {
      for (std::int64_t token = 0; token < spec.tokens; ++token) {
        sub_layer.ids[as_index(token * spec.choices)] = static_cast<std::int16_t>(token);
      }
    }
    const LayerTrace layer = layers_of(trace)[0];
    for (const std::int64_t count : {1, 2, 7, 50, 96, 97, 100, 1000}) {
      const TokenSample sample(layer, count);
      ASSERT_EQ(sample.layer().tokens, std::min(count, spec.tokens));
      ASSERT_EQ(sample.layer().groups.size(), layer.groups.size());
      const double step =
          static_cast<double>(spec.tokens) / static_cast<double>(sample.layer().tokens);
      for (std::int64_t i = 0; i < sample.layer().tokens; ++i) {
        const std::int64_t token = sample.layer().groups[0].of(i)[0];
        EXPECT_LE(std::abs(static_cast<double>(token) - step * static_cast<double>(i)), 1);
        for (std::size_t group = 0; group < layer.groups.size(); ++group) {
          EXPECT_TRUE(std::ranges::equal(sample.layer().groups[group].of(i),
                                         layer.groups[group].of(token)));
        }
      }
    }
  }
}

TEST(TokenSampleTest, NoTokens) {
  const RoutingTrace trace = make_synthetic_trace({.tokens = 0}, 1);
  EXPECT_EQ(TokenSample(layers_of(trace)[0], 100).layer().tokens, 0);
}

}  // namespace
}  // namespace cartesian::test
