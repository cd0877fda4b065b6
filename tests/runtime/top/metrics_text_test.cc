#include "runtime/top/metrics_text.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace cartesian {
namespace {

std::vector<MetricSample> parse(std::string_view text) {
  return parse_metrics_text(text, "http://host:1/metrics");
}

void expect_refused(std::string_view text, const std::string& sentence) {
  try {
    parse(text);
    ADD_FAILURE() << "was taken: " << text;
  } catch (const FormatError& error) {
    EXPECT_EQ(error.what(), "http://host:1/metrics " + sentence);
  }
}

TEST(MetricsText, Samples) {
  const auto samples = parse(
      "# HELP up Whether \"it\" is {up}.\n"
      "# TYPE up gauge\n"
      "up 1\n"
      "\n"
      "# a comment\n"
      "#\n"
      "requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n"
      "  spaced { a = \"1\" , } \t -2.5e-3 \n"
      "path{dir=\"C:\\\\DIR\\\\\",error=\"no \\\"x\\\"\\n\"} 1.458255915e9\n"
      "job:rate:sum{} +7\n");
  ASSERT_EQ(samples.size(), 5);
  EXPECT_EQ(samples[0].name, "up");
  EXPECT_EQ(samples[0].value, 1);
  EXPECT_TRUE(samples[0].labels.empty());
  EXPECT_EQ(samples[1].label("method"), "post");
  EXPECT_EQ(samples[1].label("code"), "200");
  EXPECT_EQ(samples[1].label("absent"), "");
  EXPECT_EQ(samples[1].value, 1027);
  EXPECT_EQ(samples[2].label("a"), "1");
  EXPECT_EQ(samples[2].value, -2.5e-3);
  EXPECT_EQ(samples[3].label("dir"), "C:\\DIR\\");
  EXPECT_EQ(samples[3].label("error"), "no \"x\"\n");
  EXPECT_EQ(samples[4].name, "job:rate:sum");
  EXPECT_EQ(samples[4].value, 7);
}

TEST(MetricsText, NumbersThatAreNone) {
  const auto samples = parse("a NaN\na +Inf\na -Inf\na inf\n");
  EXPECT_TRUE(std::isnan(samples[0].value));
  EXPECT_EQ(samples[1].value, HUGE_VAL);
  EXPECT_EQ(samples[2].value, -HUGE_VAL);
  EXPECT_EQ(samples[3].value, HUGE_VAL);
}

TEST(MetricsText, NothingIsNoError) { EXPECT_TRUE(parse("").empty()); }

TEST(MetricsText, RefusesByLine) {
  expect_refused("a 1\nb 2", "line 2 is cut off");
  expect_refused("a 1\n<html>\n", "line 2 has no metric's name");
  expect_refused("9a 1\n", "line 1 has no metric's name");
  expect_refused("a\n", "line 1 has \"\" where its value belongs");
  expect_refused("a 0x10\n", "line 1 has \"0x10\" where its value belongs");
  expect_refused("a +-1\n", "line 1 has \"+-1\" where its value belongs");
  expect_refused("a 1e999\n", "line 1 has \"1e999\" where its value belongs");
  expect_refused("a 1 x\n", "line 1 has \"x\" after its value");
  expect_refused("a 1 2 3\n", "line 1 goes on after its value");
  expect_refused("a{\"x\"} 1\n", "line 1 has no label's name");
  expect_refused("a{x} 1\n", "line 1 has a label without '='");
  expect_refused("a{x=1} 1\n", "line 1 has a label without a quoted value");
  expect_refused("a{x=\"1} 1\n", "line 1 has a label's value without an end");
  expect_refused("a{x=\"\\t\"} 1\n", "line 1 has a label's value with an unknown escape");
  expect_refused("a{x=\"1\" y=\"2\"} 1\n", "line 1 has a label without ',' or '}' behind it");
  expect_refused("a{x=\"1\",x=\"2\"} 1\n", "line 1 has the label x twice");
  expect_refused("# TYPE a speed\n", "line 1 has the unknown type \"speed\"");
  expect_refused("# HELP\n", "line 1 has no metric's name");
  expect_refused("a 1\na{x=\"\xff\"} 1\n", "line 2 is not UTF-8");
}

TEST(MetricsText, RefusesTooMuch) {
  expect_refused(std::string(kMaxMetricsBytes + 1, '\n'), "has more than 16777216 bytes");
  std::string many;
  for (std::size_t i = 0; i <= kMaxMetricSamples; ++i) {
    many += "a 1\n";
  }
  expect_refused(many, "line 200001 is one more than 200000 samples");
  std::string labels = "a{";
  for (std::size_t i = 0; i <= kMaxSampleLabels; ++i) {
    labels += "l" + std::to_string(i) + "=\"\",";
  }
  expect_refused(labels + "} 1\n", "line 1 has more than 32 labels");
}

}  // namespace
}  // namespace cartesian
