#include "runtime/report/run_data.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "base/error.h"
#include "base/json.h"
#include "runtime/report/json_lines.h"
#include "runtime/train/run_directory.h"

namespace cartesian {

namespace {

using nlohmann::json;

// Far above what an interval counts; sums of them still fit.
constexpr std::uint64_t kMostCounted = std::uint64_t{1} << 44;
constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

/// Keys with their values in TOML, tables flattened. Of any version's configuration: unknown keys
/// are kept, so that an old run's report can still be written.
std::vector<std::pair<std::string, std::string>> read_config(FileSystem& files, const Path& path) {
  std::vector<std::pair<std::string, std::string>> values;
  const auto add = [&](const auto& self, const std::string& prefix,
                       const toml::table& table) -> void {
    for (const auto& [key, node] : table) {
      const std::string name = prefix + std::string(key.str());
      if (const toml::table* inner = node.as_table()) {
        self(self, name + ".", *inner);
      } else if (const toml::value<double>* number = node.as_floating_point()) {
        values.emplace_back(name, fmt::format("{}", number->get()));  // as short as it was written
      } else {
        std::ostringstream text;
        node.visit([&](const auto& value) { text << value; });
        values.emplace_back(name, text.str());
      }
    }
  };
  try {
    add(add, "", toml::parse(files.read(path)));
  } catch (const toml::parse_error& error) {
    throw FormatError(
        fmt::format("{}:{}: {}", path.string(), error.source().begin.line, error.description()));
  }
  return values;
}

/// Builds a table line by line. Of lines of the same step the last counts: a run that was stopped
/// between two of its files may have written it twice.
class TableBuilder {
 public:
  explicit TableBuilder(ScalarTable& table) : table_(table) {}

  void add(const JsonLine& line) {
    const std::int64_t step = line.integer("step", 0);
    if (table_.rows() > 0 && step < table_.steps.back()) {
      line.refuse(fmt::format("step {} after step {}", step, table_.steps.back()));
    }
    if (table_.rows() > 0 && step == table_.steps.back()) {
      for (ScalarTable::Column& column : table_.columns) {
        column.values.back() = kMissing;
      }
    } else {
      table_.steps.push_back(step);
    }
    add_numbers(line, "", line.value);
    for (ScalarTable::Column& column : table_.columns) {
      column.values.resize(table_.rows(), kMissing);
    }
  }

 private:
  void add_numbers(const JsonLine& line, const std::string& prefix, const json& object) {
    for (const auto& [key, value] : object.items()) {
      if (value.is_object() && prefix.empty()) {
        add_numbers(line, key + ".", value);
      } else if (value.is_number()) {
        if (prefix.empty() && key == "step") {
          continue;
        }
        value_of(prefix + key) = value.get<double>();
      } else if (!value.is_null()) {
        line.refuse(fmt::format("{}{} is no number", prefix, key));
      }
    }
  }
  /// In the row in progress.
  double& value_of(const std::string& key) {
    auto found = std::ranges::find(table_.columns, key, &ScalarTable::Column::key);
    if (found == table_.columns.end()) {
      found = table_.columns.insert(found, {key, {}});
    }
    found->values.resize(table_.rows(), kMissing);
    return found->values.back();
  }

  ScalarTable& table_;
};

void read_metrics(FileSystem& files, RunData& run) {
  TableBuilder steps(run.steps);
  TableBuilder validations(run.validations);
  read_json_lines(files, run.path / kMetricsFile, [&](const JsonLine& line) {
    (line.value.contains("valid_loss") ? validations : steps).add(line);
  });
  if (run.steps.find("loss") == nullptr) {
    throw FormatError(fmt::format("{}: holds no step yet, so there is nothing to report",
                                  (run.path / kMetricsFile).string()));
  }
}

/// Appends the counts of [d0][d1][d2] lists. The first line sets extents that are zero; every other
/// must have the same.
void read_counts(const JsonLine& line, const char* key, const std::vector<std::int64_t*>& extents,
                 std::vector<std::int64_t>& counts) {
  const auto read = [&](const auto& self, const json& list, std::size_t depth) -> void {
    std::int64_t& extent = *extents[depth];
    const auto size = static_cast<std::int64_t>(list.is_array() ? list.size() : 0);
    extent = extent == 0 ? size : extent;
    if (size == 0 || size != extent) {
      line.refuse(fmt::format("{} is not an array of the same extents as before", key));
    }
    for (const json& element : list) {
      if (depth + 1 < extents.size()) {
        self(self, element, depth + 1);
      } else if (element.is_number_unsigned() && element.get<std::uint64_t>() < kMostCounted) {
        counts.push_back(element.get<std::int64_t>());
      } else {
        line.refuse(fmt::format("{} must hold counts", key));
      }
    }
  };
  const auto found = line.value.find(key);
  if (found == line.value.end()) {
    line.refuse(fmt::format("key \"{}\" is missing", key));
  }
  read(read, *found, 0);
}

void read_experts(FileSystem& files, const Path& path, ExpertRecords& all) {
  read_json_lines(files, path, [&](const JsonLine& line) {
    ExpertRecord record{.step = line.integer("step", 1),
                        .steps = line.integer("steps", 1),
                        .loads = {},
                        .pair_steps = 0,
                        .pairs = {}};
    if (!all.records.empty() && record.step <= all.records.back().step) {
      line.refuse(fmt::format("step {} after step {}", record.step, all.records.back().step));
    }
    if (record.steps > record.step) {
      line.refuse(fmt::format("{} steps before step {}", record.steps, record.step));
    }
    read_counts(line, "loads", {&all.layers, &all.groups, &all.experts}, record.loads);
    if (line.value.contains("pairs")) {
      record.pair_steps = line.integer("pair_steps", 1);
      read_counts(line, "pairs", {&all.layers, &all.experts, &all.experts}, record.pairs);
    }
    all.records.push_back(std::move(record));
  });
}

std::string short_name(const Path& path) {
  const Path whole = std::filesystem::absolute(path).lexically_normal();
  const Path last = whole.has_filename() ? whole.filename() : whole.parent_path().filename();
  return last.empty() ? whole.string() : last.string();
}

}  // namespace

const ScalarTable::Column* ScalarTable::find(const std::string& key) const {
  const auto found = std::ranges::find(columns, key, &Column::key);
  return found == columns.end() ? nullptr : &*found;
}

std::string RunData::config_value(const std::string& key) const {
  const auto found = std::ranges::find(config, key, &std::pair<std::string, std::string>::first);
  return found == config.end() ? "" : found->second;
}

RunData load_run(FileSystem& files, const Path& path) {
  RunData run;
  run.path = path;
  run.name = short_name(path);
  if (!files.exists(path / kRunConfigFile)) {
    throw FormatError(
        fmt::format("{} is not a run directory: it has no {}", path.string(), kRunConfigFile));
  }
  run.config = read_config(files, path / kRunConfigFile);
  read_metrics(files, run);
  if (files.exists(path / kExpertsFile)) {
    read_experts(files, path / kExpertsFile, run.experts);
  }
  if (files.exists(path / kEnvironmentFile)) {
    read_json_lines(files, path / kEnvironmentFile,
                    [&](const JsonLine& line) { run.environment.push_back(line.value); });
  }
  if (const Path summary = path / kSummaryFile; files.exists(summary)) {
    run.summary = parse_json(files.read(summary), summary.string());
    if (!run.summary.is_object()) {
      throw FormatError(fmt::format("{}: not a JSON object", summary.string()));
    }
  }
  return run;
}

std::vector<RunData> load_runs(FileSystem& files, const std::vector<Path>& paths) {
  std::vector<RunData> runs;
  for (const Path& path : paths) {
    runs.push_back(load_run(files, path));
  }
  std::vector<std::string> names;
  std::ranges::transform(runs, std::back_inserter(names), &RunData::name);
  for (RunData& run : runs) {
    if (std::ranges::count(names, run.name) > 1) {
      run.name = run.path.lexically_normal().string();
    }
  }
  return runs;
}

}  // namespace cartesian
