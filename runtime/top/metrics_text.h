#pragma once
// metrics_text: reads Prometheus' text exposition format, version 0.0.4, from whoever answers.

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cartesian {

struct MetricSample {
  std::string name;
  std::vector<std::pair<std::string, std::string>> labels;  ///< in the text's order, names distinct
  double value = 0;                                         ///< or infinite, or NaN

  /// The value of a label; empty if there is none of that name.
  std::string_view label(std::string_view wanted) const;
};

inline constexpr std::size_t kMaxMetricsBytes = std::size_t{16} << 20;
inline constexpr std::size_t kMaxMetricSamples = 200'000;
inline constexpr std::size_t kMaxSampleLabels = 32;

/// All samples, in the text's order; timestamps are read and dropped. Strict: every line is a
/// sample, a comment or empty, and ends in a line feed; the text is UTF-8 and within the limits
/// above. Throws FormatError, "`source` line N: ...".
std::vector<MetricSample> parse_metrics_text(std::string_view text, const std::string& source);

}  // namespace cartesian
