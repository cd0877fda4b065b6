#include "planner/synthetic_trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <span>
#include <vector>

#include "base/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace cartesian::test {
namespace {

/// The share of pairs of choices of a token, one of A and one of B, whose experts are of one topic.
double same_topic(const RoutingTrace& trace, int topics, std::int64_t begin, std::int64_t end) {
  double same = 0;
  double all = 0;
  for (std::int64_t i = begin * 2; i < end * 2; ++i) {
    for (std::int64_t j = i / 2 * 2; j < i / 2 * 2 + 2; ++j) {
      const int a = trace.sub_layers[0].ids[static_cast<std::size_t>(i)];
      const int b = trace.sub_layers[1].ids[static_cast<std::size_t>(j)];
      same += a % topics == b % topics ? 1 : 0;
      ++all;
    }
  }
  return same / all;
}

TEST(SyntheticTrace, IsAValidTraceWhateverTheSpec) {
  const TemporaryDirectory directory;
  const auto files = make_posix_file_system();
  for (const SyntheticTraceSpec& spec :
       {SyntheticTraceSpec{}, SyntheticTraceSpec{.layers = 3, .groups = 1},
        SyntheticTraceSpec{.experts = 12,
        .choices = 4,
        .cluster = 4,
        .skew = 1,
        .drift = 1,
        .ragged = true,
        .prediction = 0.5},
        SyntheticTraceSpec{.experts = 1, .choices = 1}, SyntheticTraceSpec{.tokens = 0},
        SyntheticTraceSpec{.tokens = 192, .cluster = 2, .vocab_size = 30, .sequence_length = 16}}) {
    const RoutingTrace trace = make_synthetic_trace(spec, 3);
    save_routing_trace(*files, directory / "trace", trace);
    const RoutingTrace read = load_routing_trace(*files, directory / "trace");
    EXPECT_EQ(read.tokens, spec.tokens);
    EXPECT_EQ(read.sub_layers.size(), static_cast<std::size_t>(spec.layers * spec.groups));
    EXPECT_EQ(read.sub_layers[0].ids, make_synthetic_trace(spec, 3).sub_layers[0].ids);
  }
}

TEST(SyntheticTrace, HasTheStructureThatIsAskedFor) {
  const SyntheticTraceSpec plain{.experts = 16, .tokens = 4000};
  SyntheticTraceSpec topics = plain;
  topics.cluster = 4;
  SyntheticTraceSpec skewed = plain;
  skewed.skew = 1;
  EXPECT_NEAR(same_topic(make_synthetic_trace(plain, 1), 4, 0, 4000), 0.25, 0.02);
  // Both in the topic, or by chance: 0.64 + 0.36 / 4.
  EXPECT_NEAR(same_topic(make_synthetic_trace(topics, 1), 4, 0, 4000), 0.73, 0.03);
  const auto first_quarter = [](const RoutingTrace& trace) {
    return std::ranges::count_if(trace.sub_layers[0].ids, [](std::int16_t id) { return id < 4; });
  };
  EXPECT_GT(first_quarter(make_synthetic_trace(skewed, 1)),
            1.5 * static_cast<double>(first_quarter(make_synthetic_trace(plain, 1))));
}

TEST(SyntheticTrace, ATopicMayHaveFewerExpertsThanATokenChooses) {
  const RoutingTrace trace =
      make_synthetic_trace({.choices = 5, .tokens = 50, .cluster = 2, .strength = 1}, 1);
  for (std::size_t token = 0; token < 50; ++token) {
    const auto ids = std::span(trace.sub_layers[0].ids).subspan(5 * token, 5);
    EXPECT_EQ(std::set<std::int16_t>(ids.begin(), ids.end()).size(), 5U);
    EXPECT_EQ(ids[0] % 4, ids[1] % 4);
  }
}

TEST(SyntheticTrace, TextKeepsToTopicsThatChoicesFollow) {
  const RoutingTrace trace = make_synthetic_trace(
      {.experts = 16, .tokens = 4000, .cluster = 4, .vocab_size = 50, .sequence_length = 40}, 1);
  EXPECT_EQ(trace.vocab_size, 50);
  EXPECT_EQ(trace.sequence_length, 40);
  double neighbours = 0;
  double chosen = 0;
  for (std::size_t token = 0; token < 4000; ++token) {
    const int topic = trace.token_ids[token] % 4;
    ASSERT_LT(trace.token_ids[token], 50);
    neighbours += token % 40 != 0 && trace.token_ids[token - 1] % 4 == topic ? 1 : 0;
    chosen += trace.sub_layers[1].ids[2 * token] % 4 == topic ? 1 : 0;
  }
  // Both of the sequence's topic, or by chance; in the topic, or by chance.
  EXPECT_NEAR(neighbours / 3900, 0.85 * 0.85 + 0.15 * 0.15 / 3, 0.05);
  EXPECT_NEAR(chosen / 4000, 0.85, 0.02);
}

TEST(SyntheticTrace, SaysWhatItIsToldOfItsModel) {
  const RoutingTrace trace = make_synthetic_trace(
      {.hidden = 96, .expert_width = 32, .tokens_per_step = 1000, .dtype = "bfloat16"}, 1);
  EXPECT_EQ(trace.hidden, 96);
  EXPECT_EQ(trace.expert_width, 32);
  EXPECT_EQ(trace.tokens_per_step, 1000);
  EXPECT_EQ(trace.dtype, "bfloat16");
  expect_error<ConfigError>([] { make_synthetic_trace({.dtype = "float8"}, 1); }, {"float8"});
  expect_error<ConfigError>([] { make_synthetic_trace({.hidden = 0}, 1); }, {"hidden size 0"});
}

TEST(SyntheticTrace, PredictionsAreWrongAsOftenAsAskedFor) {
  const RoutingTrace trace =
      make_synthetic_trace({.experts = 64, .tokens = 4000, .prediction = 0.75}, 2);
  double right = 0;
  for (std::size_t i = 0; i < 8000; ++i) {
    right += trace.sub_layers[1].ids[i] == trace.sub_layers[1].speculative_ids[i] ? 1 : 0;
  }
  EXPECT_NEAR(right / 8000, 0.75 + 0.25 / 64, 0.02);
}

TEST(SyntheticTrace, MoreThanFitsIsRefused) {
  for (const std::int64_t tokens : {std::int64_t{536870912}, std::int64_t{1} << 62}) {
    expect_error<ConfigError>([&] { make_synthetic_trace({.tokens = tokens}, 1); },
                              {"4 choices each", "at most 536870911 tokens"});
  }
}

TEST(SyntheticTrace, WhatCannotBeIsRefused) {
  for (const SyntheticTraceSpec& spec :
       {SyntheticTraceSpec{.choices = 9}, SyntheticTraceSpec{.cluster = 9},
        SyntheticTraceSpec{.strength = 1.5}, SyntheticTraceSpec{.drift = -1}}) {
    expect_error<ConfigError>([&] { make_synthetic_trace(spec, 1); }, {"8 experts", "cannot be"});
  }
  for (const SyntheticTraceSpec& spec :
       {SyntheticTraceSpec{.cluster = 2, .vocab_size = 3, .sequence_length = 10},
        SyntheticTraceSpec{.vocab_size = 9, .sequence_length = 0},
        SyntheticTraceSpec{.vocab_size = 9, .sequence_length = 64},
        SyntheticTraceSpec{.vocab_size = -1, .sequence_length = 10}}) {
    expect_error<ConfigError>([&] { make_synthetic_trace(spec, 1); }, {"vocabulary", "cannot be"});
  }
}

}  // namespace
}  // namespace cartesian::test
