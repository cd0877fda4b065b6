#pragma once
// RunData: what a run directory (docs/formats.md) tells of a run, finished or in progress.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/file_system.h"

namespace cartesian {

/// Scalars by step: the numbers of a log's lines, each key a column.
struct ScalarTable {
  struct Column {
    std::string key;             ///< as in the log; of an object in it "phase_s.experts"
    std::vector<double> values;  ///< by row; NaN where a line lacks it
  };
  std::vector<std::int64_t> steps;  ///< ascending
  std::vector<Column> columns;      ///< in order of first appearance

  std::size_t rows() const { return steps.size(); }
  /// Null if there is none.
  const Column* find(const std::string& key) const;
};

/// A line of experts.jsonl. [layer][group][expert] and [layer][A][B], flat.
struct ExpertRecord {
  std::int64_t step = 0;   ///< the last of the interval
  std::int64_t steps = 0;  ///< in it
  std::vector<std::int64_t> loads;
  std::int64_t pair_steps = 0;
  std::vector<std::int64_t> pairs;  ///< empty: not in this line
};

/// All records have the same extents.
struct ExpertRecords {
  std::int64_t layers = 0;
  std::int64_t groups = 0;
  std::int64_t experts = 0;
  std::vector<ExpertRecord> records;  ///< ascending steps
};

struct RunData {
  Path path;
  std::string name;                                         ///< short, for people
  std::vector<std::pair<std::string, std::string>> config;  ///< "section.key" and its TOML value
  ScalarTable steps;
  ScalarTable validations;
  ExpertRecords experts;
  std::vector<nlohmann::json> environment;  ///< one a start
  nlohmann::json summary;                   ///< null if there is none

  /// The TOML value of a key; empty if the configuration lacks it.
  std::string config_value(const std::string& key) const;
};

/// Reads a run directory. Lines that the run has not finished writing are left out; logs that a run
/// made elsewhere lacks, all but config.toml and metrics.jsonl, are empty. Throws FileError or
/// FormatError, which name the file and the line.
RunData load_run(FileSystem& files, const Path& path);

/// Reads several and makes their names distinct.
std::vector<RunData> load_runs(FileSystem& files, const std::vector<Path>& paths);

}  // namespace cartesian
