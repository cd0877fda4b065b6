#include "runtime/checkpoint/checkpoint_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/hash.h"
#include "base/json.h"

namespace cartesian {

namespace {

using Json = nlohmann::json;
constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();
constexpr std::string_view kStepPrefix = "step-";
constexpr std::string_view kTemporaryPrefix = ".tmp-";

std::string text_of(const Json& value, const std::string& what, const std::string& source) {
  if (!value.is_string()) {
    throw FormatError(fmt::format("{}: {} is not a string", source, what));
  }
  return value.get<std::string>();
}

/// The step in a checkpoint's directory name, or nothing.
std::optional<std::int64_t> step_of(const std::string& name) {
  const std::string digits = name.starts_with(kStepPrefix) ? name.substr(kStepPrefix.size()) : "";
  if (digits.empty() || digits.size() > 15 ||
      digits.find_first_not_of("0123456789") != std::string::npos) {
    return std::nullopt;
  }
  return std::stoll(digits);
}

}  // namespace

std::string to_json(const TrainerState& state) {
  return Json{{"version", 1},
              {"step", state.step},
              {"sequences", state.sequences},
              {"seed", state.seed},
              {"sequence_length", state.sequence_length},
              {"windows", state.windows},
              {"order", state.order}}
             .dump(2) +
         "\n";
}

TrainerState parse_trainer_state(const std::string& text, const std::string& path) {
  const Json json = parse_json(text, path);
  check_json_keys(
      json, {"version", "step", "sequences", "seed", "sequence_length", "windows", "order"}, path);
  json_integer(json_at(json, "version", path), 1, 1, "version", path);
  const auto number = [&](const char* key) {
    return json_integer(json_at(json, key, path), 0, kLargest, key, path);
  };
  TrainerState state{.step = number("step"),
                     .sequences = number("sequences"),
                     .seed = number("seed"),
                     .sequence_length = number("sequence_length"),
                     .windows = number("windows")};
  if (json.contains("order")) {  // not in older checkpoints, which are shuffled
    state.order = text_of(json["order"], "order", path);
  }
  return state;
}

std::string to_json(const std::vector<ShardRecord>& records) {
  Json json = Json::array();
  for (const ShardRecord& record : records) {
    json.push_back({{"file", record.file},
                    {"hash", hash_hex(record.hash)},
                    {"bytes", record.bytes},
                    {"tensors", record.tensors}});
  }
  return json.dump();
}

std::vector<ShardRecord> parse_shard_records(const std::string& text, const std::string& source) {
  std::vector<ShardRecord> records;
  for (const Json& json : parse_json(text, source)) {
    records.push_back(
        {.file = text_of(json_at(json, "file", source), "file", source),
         .hash = std::stoull(text_of(json_at(json, "hash", source), "hash", source), nullptr, 16),
         .bytes = json_integer(json_at(json, "bytes", source), 0, kLargest, "bytes", source),
         .tensors = json_at(json, "tensors", source).get<std::vector<std::string>>()});
  }
  return records;
}

std::string index_json(const std::vector<ShardRecord>& shards) {
  Json map = Json::object();
  std::int64_t bytes = 0;
  for (const ShardRecord& shard : shards) {
    bytes += shard.bytes;
    for (const std::string& tensor : shard.tensors) {
      map[tensor] = shard.file;
    }
  }
  return Json{{"metadata", {{"total_size", bytes}}}, {"weight_map", map}}.dump(2) + "\n";
}

std::map<std::string, std::string> parse_index(const std::string& text, const std::string& path) {
  const Json json = parse_json(text, path);
  const Json& map = json_at(json, "weight_map", path);
  if (!map.is_object()) {
    throw FormatError(fmt::format("{}: weight_map is not an object", path));
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor, value] : map.items()) {
    const std::string file = text_of(value, fmt::format("weight_map[{}]", quote(tensor)), path);
    if (file.empty() || file.find('/') != std::string::npos || file.starts_with('.')) {
      throw FormatError(
          fmt::format("{}: weight_map names a file outside the directory: {}", path, quote(file)));
    }
    files.emplace(tensor, file);
  }
  return files;
}

std::string checkpoint_name(std::int64_t step) { return fmt::format("{}{:08}", kStepPrefix, step); }

Path checkpoints_directory(const Path& run_directory) { return run_directory / "checkpoints"; }

std::vector<std::int64_t> complete_checkpoints(FileSystem& files, const Path& directory) {
  std::vector<std::int64_t> steps;
  for (const std::string& name : files.list(directory)) {
    const auto step = step_of(name);
    if (step && files.exists(directory / name / kChecksumsFile)) {
      steps.push_back(*step);
    }
  }
  std::ranges::sort(steps);
  return steps;
}

void remove_checkpoint(FileSystem& files, const Path& directory, std::int64_t step) {
  const Path removed = directory / (".tmp-removed-" + checkpoint_name(step));
  files.remove_all(removed);
  files.rename(directory / checkpoint_name(step), removed);
  files.remove_all(removed);
}

void remove_old_checkpoints(FileSystem& files, const Path& directory, std::int64_t keep) {
  std::vector<std::int64_t> steps = complete_checkpoints(files, directory);
  for (; static_cast<std::int64_t>(steps.size()) > keep; steps.erase(steps.begin())) {
    remove_checkpoint(files, directory, steps.front());
  }
}

void remove_incomplete_checkpoints(FileSystem& files, const Path& directory) {
  for (const std::string& name : files.list(directory)) {
    if (name.starts_with(kTemporaryPrefix)) {
      files.remove_all(directory / name);
    }
  }
}

}  // namespace cartesian
