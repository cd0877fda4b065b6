#pragma once
// RunDirectory: what a training run leaves behind: config.toml, metrics.jsonl, experts.jsonl,
// plans.jsonl, environment.jsonl, timeline.json, placement.json, summary.json and checkpoints/.
// Rank 0 writes.

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "base/file_system.h"
#include "comm/transport.h"
#include "runtime/config/config.h"

namespace cartesian {

inline constexpr const char* kRunConfigFile = "config.toml";
inline constexpr const char* kMetricsFile = "metrics.jsonl";
inline constexpr const char* kExpertsFile = "experts.jsonl";
inline constexpr const char* kPlansFile = "plans.jsonl";
inline constexpr const char* kEnvironmentFile = "environment.jsonl";
inline constexpr const char* kSummaryFile = "summary.json";
inline constexpr const char* kTimelineFile = "timeline.json";
inline constexpr const char* kPlacementFile = "placement.json";

class RunDirectory {
 public:
  /// Creates the directory, locks it against other jobs, and checks that every rank sees the same
  /// one and may write. A placement.json of a run that has left no checkpoint is removed, unless it
  /// is parallel.placement. Throws ConfigError if another job is using it or, without `resume`, if
  /// it holds checkpoints already. Errors are thrown on every rank alike. Collective.
  RunDirectory(FileSystem& files, Transport& transport, const Config& config, bool resume);

  const Path& path() const { return path_; }
  Path checkpoints() const;
  /// The last complete checkpoint, if there is one. The same on every rank. Collective.
  std::optional<Path> last_checkpoint();

  /// Writes config.toml and opens the logs, dropping what a run that is resumed from `first_step`
  /// writes again: lines of later steps, and the last validation if no step is left to train. Rank
  /// 0 does, the others wait. Collective.
  void open_log(const Config& config, std::int64_t first_step);
  /// Each appends one line to its log; on other ranks than 0 does nothing.
  void log(const nlohmann::ordered_json& record);
  void log_experts(const nlohmann::ordered_json& record);
  void log_plan(const nlohmann::ordered_json& record);
  void log_environment(const nlohmann::ordered_json& record);
  /// Replaces summary.json; on other ranks than 0 does nothing.
  void write_summary(const nlohmann::ordered_json& summary);
  /// Likewise placement.json.
  void write_placement(const std::string& json);
  /// Likewise timeline.json. Returns its path.
  Path write_timeline(const std::string& json);

 private:
  void check_shared();
  std::unique_ptr<OutputFile> open_lines(const Path& path,
                                         const std::function<bool(const nlohmann::json&)>& keep);

  FileSystem& files_;
  Transport& transport_;
  Path path_;
  std::unique_ptr<FileLock> lock_;  ///< on rank 0
  std::unique_ptr<OutputFile> metrics_;
  std::unique_ptr<OutputFile> experts_;
  std::unique_ptr<OutputFile> plans_;
  std::unique_ptr<OutputFile> environment_;
};

}  // namespace cartesian
