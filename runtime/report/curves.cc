#include "runtime/report/curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

namespace cartesian {

namespace {

using nlohmann::ordered_json;

/// Rows [begin, end) of stretch `index` of `count`.
struct Stretch {
  std::size_t begin;
  std::size_t end;
  Stretch(std::size_t rows, std::size_t index, std::size_t count)
      : begin(rows * index / count), end(rows * (index + 1) / count) {}
};

struct Extremes {
  double sum = 0;
  double min = 0;
  double max = 0;
  std::size_t count = 0;

  void add(double value) {
    if (!std::isfinite(value)) {
      return;
    }
    min = count == 0 ? value : std::min(min, value);
    max = count == 0 ? value : std::max(max, value);
    sum += value;
    ++count;
  }
  ordered_json mean() const {
    return count == 0 ? ordered_json() : short_number(sum / static_cast<double>(count));
  }
};

/// The last number of a column, as it was logged; null if there is none.
ordered_json last_number(const std::vector<double>& values) {
  const auto last = std::find_if(values.rbegin(), values.rend(),
                                 [](double value) { return std::isfinite(value); });
  return last == values.rend() ? ordered_json() : ordered_json(*last);
}

ordered_json column_json(const ScalarTable::Column& column, std::size_t points) {
  const std::size_t rows = column.values.size();
  ordered_json mean = ordered_json::array();
  ordered_json min = ordered_json::array();
  ordered_json max = ordered_json::array();
  for (std::size_t i = 0; i < points; ++i) {
    const Stretch stretch(rows, i, points);
    Extremes extremes;
    for (std::size_t row = stretch.begin; row < stretch.end; ++row) {
      extremes.add(column.values[row]);
    }
    mean.push_back(extremes.mean());
    min.push_back(extremes.count == 0 ? ordered_json() : short_number(extremes.min));
    max.push_back(extremes.count == 0 ? ordered_json() : short_number(extremes.max));
  }
  ordered_json json = {{"mean", std::move(mean)}, {"last", last_number(column.values)}};
  if (min != max && !column.key.starts_with("phase_s.")) {
    json["min"] = std::move(min);
    json["max"] = std::move(max);
  }
  return json;
}

std::vector<double> cumulative_seconds(const ScalarTable& table) {
  std::vector<double> seconds(table.rows());
  if (const ScalarTable::Column* step_s = table.find("step_s")) {
    double sum = 0;
    for (std::size_t row = 0; row < seconds.size(); ++row) {
      sum += std::isfinite(step_s->values[row]) ? step_s->values[row] : 0;
      seconds[row] = sum;
    }
  }
  return seconds;
}

double median(std::vector<double> values) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  if (values.empty()) {
    return std::nan("");
  }
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  // Of an even number of values the mean of the two in the middle.
  return values.size() % 2 == 1 ? *middle
                                : (*middle + *std::max_element(values.begin(), middle)) / 2;
}

}  // namespace

ordered_json short_number(double value) {
  if (!std::isfinite(value)) {
    return nullptr;
  }
  if (value == std::floor(value) && std::abs(value) < 1e6) {
    return static_cast<std::int64_t>(value);
  }
  return std::strtod(fmt::format("{:.5g}", value).c_str(), nullptr);
}

ordered_json curves_json(const ScalarTable& table, std::size_t points) {
  points = std::min(points, table.rows());
  const std::vector<double> cumulative = cumulative_seconds(table);
  ordered_json steps = ordered_json::array();
  ordered_json seconds = ordered_json::array();
  for (std::size_t i = 0; i < points; ++i) {
    const std::size_t last = Stretch(table.rows(), i, points).end - 1;
    steps.push_back(table.steps[last]);
    seconds.push_back(short_number(cumulative[last]));
  }
  ordered_json columns = ordered_json::object();
  for (const ScalarTable::Column& column : table.columns) {
    columns[column.key] = column_json(column, points);
  }
  return {
      {"step", std::move(steps)}, {"seconds", std::move(seconds)}, {"columns", std::move(columns)}};
}

ordered_json totals_json(const ScalarTable& table) {
  ordered_json medians = ordered_json::object();
  for (const ScalarTable::Column& column : table.columns) {
    medians[column.key] = short_number(median(column.values));
  }
  const std::vector<double> seconds = cumulative_seconds(table);
  return {{"median", std::move(medians)},
          {"seconds", short_number(seconds.empty() ? 0 : seconds.back())}};
}

}  // namespace cartesian
