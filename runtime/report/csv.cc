#include "runtime/report/csv.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace cartesian {

namespace {

std::string quoted(const std::string& field) {
  if (field.find_first_of(",\"\r\n") == std::string::npos) {
    return field;
  }
  std::string text = "\"";
  for (const char c : field) {
    text += c == '"' ? "\"\"" : std::string(1, c);
  }
  return text + "\"";
}

/// Row of `table` for `step`, or its rows().
std::size_t row_of(const ScalarTable& table, std::int64_t step) {
  const auto found = std::ranges::lower_bound(table.steps, step);
  return found != table.steps.end() && *found == step
             ? static_cast<std::size_t>(found - table.steps.begin())
             : table.rows();
}

void append_fields(const ScalarTable& table, std::size_t row, const std::vector<std::string>& keys,
                   std::string& line) {
  for (const std::string& key : keys) {
    const ScalarTable::Column* column = table.find(key);
    line += ',';
    if (column != nullptr && row < table.rows() && std::isfinite(column->values[row])) {
      line += fmt::format("{}", column->values[row]);
    }
  }
}

std::vector<std::string> keys_of(const std::vector<RunData>& runs, ScalarTable RunData::*table) {
  std::vector<std::string> keys;
  for (const RunData& run : runs) {
    for (const ScalarTable::Column& column : (run.*table).columns) {
      if (std::ranges::find(keys, column.key) == keys.end()) {
        keys.push_back(column.key);
      }
    }
  }
  return keys;
}

}  // namespace

std::string make_csv(const std::vector<RunData>& runs) {
  const std::vector<std::string> step_keys = keys_of(runs, &RunData::steps);
  const std::vector<std::string> validation_keys = keys_of(runs, &RunData::validations);
  std::string csv = "run,step";
  for (const auto* keys : {&step_keys, &validation_keys}) {
    for (const std::string& key : *keys) {
      csv += ',' + quoted(key);
    }
  }
  csv += '\n';
  for (const RunData& run : runs) {
    std::set<std::int64_t> steps(run.steps.steps.begin(), run.steps.steps.end());
    steps.insert(run.validations.steps.begin(), run.validations.steps.end());
    for (const std::int64_t step : steps) {
      csv += fmt::format("{},{}", quoted(run.name), step);
      append_fields(run.steps, row_of(run.steps, step), step_keys, csv);
      append_fields(run.validations, row_of(run.validations, step), validation_keys, csv);
      csv += '\n';
    }
  }
  return csv;
}

}  // namespace cartesian
