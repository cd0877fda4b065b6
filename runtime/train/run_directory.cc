#include "runtime/train/run_directory.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "comm/collectives.h"
#include "runtime/checkpoint/checkpoint_files.h"

namespace cartesian {

namespace {

void append_line(const std::unique_ptr<OutputFile>& file, const nlohmann::ordered_json& record) {
  if (file) {
    file->append(record.dump() + "\n");
    file->flush();
  }
}

}  // namespace

RunDirectory::RunDirectory(FileSystem& files, Transport& transport, const Config& config,
                           bool resume)
    : files_(files), transport_(transport), path_(config.run.dir) {
  agree(transport_, {"run directory"}, [&] {
    if (transport_.rank() == 0) {
      files_.create_directories(checkpoints());
      lock_ = files_.try_lock(path_ / ".lock");
      if (!lock_) {
        throw ConfigError(fmt::format(
            "run.dir = \"{}\" is in use by another job: wait for its end, or choose another "
            "directory",
            path_.string()));
      }
      const bool from_the_start = complete_checkpoints(files_, checkpoints()).empty();
      if (!resume && !from_the_start) {
        throw ConfigError(
            fmt::format("run.dir = \"{}\" already holds a run with checkpoints: pass --resume to "
                        "go on with it, "
                        "or choose another directory",
                        path_.string()));
      }
      remove_incomplete_checkpoints(files_, checkpoints());
      // Of what a killed job may have left by write_atomically(), all but this is written anew by
      // every job.
      files_.remove_all(path_ / fmt::format("{}.tmp", kPlacementFile));
      // Where another run had moved experts to is not where they are.
      if (from_the_start && !files_.same_file(config.parallel.placement, path_ / kPlacementFile)) {
        files_.remove_all(path_ / kPlacementFile);
      }
    }
  });
  check_shared();
}

Path RunDirectory::checkpoints() const { return checkpoints_directory(path_); }

void RunDirectory::check_shared() {
  const Path probe = path_ / ".shared-file-system";
  agree(transport_, {"run directory"}, [&] {
    if (transport_.rank() == 0) {
      files_.write_atomically(probe, "seen by every rank\n");
    }
  });
  agree(transport_, {"run directory"}, [&] {
    if (!files_.exists(probe)) {
      throw ConfigError(fmt::format(
          "run.dir = \"{}\" on {} is not the directory that rank 0 sees: all ranks need a shared "
          "file system",
          path_.string(), transport_.host()));
    }
  });
  agree(transport_, {"run directory"}, [&] {
    if (transport_.rank() == 0) {
      files_.remove_all(probe);
    }
  });
}

std::optional<Path> RunDirectory::last_checkpoint() {
  std::string name;
  agree(transport_, {"run directory"}, [&] {
    if (transport_.rank() == 0) {
      const auto steps = complete_checkpoints(files_, checkpoints());
      name = steps.empty() ? "" : checkpoint_name(steps.back());
    }
  });
  broadcast(transport_, 0, name, {"run directory"});
  return name.empty() ? std::nullopt : std::optional(checkpoints() / name);
}

void RunDirectory::open_log(const Config& config, std::int64_t first_step) {
  agree(transport_, {"run directory"}, [&] {
    if (transport_.rank() != 0) {
      return;
    }
    files_.write_atomically(path_ / kRunConfigFile, to_toml(config));
    const auto until_then = [&](const nlohmann::json& line) {
      return first_step > 0 && line["step"].get<std::int64_t>() <= first_step;
    };
    const auto not_again = [&](const nlohmann::json& line) {
      const bool again = first_step == config.train.steps && !config.data.valid.empty() &&
                         line["step"].get<std::int64_t>() == first_step &&
                         line.contains("valid_loss");
      return until_then(line) && !again;
    };
    metrics_ = open_lines(path_ / kMetricsFile, not_again);
    experts_ = open_lines(path_ / kExpertsFile, until_then);
    plans_ = open_lines(path_ / kPlansFile, until_then);
    environment_ = open_lines(path_ / kEnvironmentFile, until_then);
  });
}

std::unique_ptr<OutputFile> RunDirectory::open_lines(
    const Path& path, const std::function<bool(const nlohmann::json&)>& keep) {
  std::string kept;
  if (files_.exists(path)) {
    const std::string old = files_.read(path);
    for (std::size_t begin = 0; begin < old.size();) {
      const std::size_t end = std::min(old.find('\n', begin), old.size());
      const std::string line = old.substr(begin, end - begin);
      const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (json.is_object() && json.contains("step") && json["step"].is_number_integer() &&
          keep(json)) {
        kept += line + "\n";
      }
      begin = end + 1;
    }
  }
  files_.write_atomically(path, kept);
  return files_.open_append(path);
}

void RunDirectory::log(const nlohmann::ordered_json& record) { append_line(metrics_, record); }

void RunDirectory::log_experts(const nlohmann::ordered_json& record) {
  append_line(experts_, record);
}

void RunDirectory::log_plan(const nlohmann::ordered_json& record) { append_line(plans_, record); }

void RunDirectory::log_environment(const nlohmann::ordered_json& record) {
  append_line(environment_, record);
}

void RunDirectory::write_placement(const std::string& json) {
  if (transport_.rank() == 0) {
    files_.write_atomically(path_ / kPlacementFile, json);
  }
}

Path RunDirectory::write_timeline(const std::string& json) {
  Path path = path_ / kTimelineFile;
  if (transport_.rank() == 0) {
    files_.write_atomically(path, json);
  }
  return path;
}

void RunDirectory::write_summary(const nlohmann::ordered_json& summary) {
  if (transport_.rank() == 0) {
    files_.write_atomically(path_ / kSummaryFile, summary.dump(2) + "\n");
  }
}

}  // namespace cartesian
