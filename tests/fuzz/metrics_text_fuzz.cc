#include <gtest/gtest.h>

#include "runtime/top/metrics_text.h"
#include "tests/fuzz/mutator.h"

namespace cartesian {
namespace {

TEST(Fuzz, MetricsText) {
  const std::vector<std::string> seeds = {
      "# HELP cartesian_step The highest step.\n# TYPE cartesian_step gauge\ncartesian_step 38\n",
      "cartesian_expert_tokens_total{layer=\"0\",group=\"A\",expert=\"3\"} 3661 1395066363000\n"
      "cartesian_rank_step_seconds{rank=\"1\",host=\"a\\\\b\\\"c\\n\"} 0.389\n",
      "cartesian_step_seconds_bucket{le=\"+Inf\"} 76\nup{} NaN\n\n# note\nx:y -2.5e-3\n"};
  const std::vector<std::string> words = {"\n",
                                          "{",
                                          "}",
                                          "\"",
                                          "\\",
                                          "\\n",
                                          ",",
                                          "=",
                                          "=\"",
                                          "\",",
                                          "{}",
                                          "#",
                                          "# TYPE ",
                                          "# HELP ",
                                          " histogram",
                                          "NaN",
                                          "-Inf",
                                          "1e999",
                                          "1e-999",
                                          "0x1p3",
                                          "+-1",
                                          "9223372036854775808",
                                          "\xc3\xa9",
                                          "\xff",
                                          std::string(1, '\0')};
  fuzz(Mutator(seeds, words), [](const std::string& input) {
    for (const MetricSample& sample : parse_metrics_text(input, "text")) {
      EXPECT_FALSE(sample.name.empty());
      EXPECT_LE(sample.labels.size(), kMaxSampleLabels);
      for (const auto& [name, value] : sample.labels) {
        EXPECT_EQ(sample.label(name), value);
      }
    }
  });
}

}  // namespace
}  // namespace cartesian
