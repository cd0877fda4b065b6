#pragma once
// Names and small files of a checkpoint directory; docs/formats.md describes the whole. A directory
// is complete, and only then has its final name step-NNNNNNNN, when checksums.json lists every
// other file in it.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/file_system.h"

namespace cartesian {

inline constexpr const char* kConfigFile = "config.json";
inline constexpr const char* kIndexFile = "model.safetensors.index.json";
inline constexpr const char* kOptimizerIndexFile = "optimizer.safetensors.index.json";
inline constexpr const char* kChecksumsFile = "checksums.json";
inline constexpr const char* kTrainerFile = "trainer.json";
inline constexpr const char* kTokenizerFile = "tokenizer.json";

/// Where training stands: what trainer.json holds.
struct TrainerState {
  std::int64_t step = 0;       ///< optimizer steps done
  std::int64_t sequences = 0;  ///< sequences of the data's order consumed
  std::int64_t seed = 0;
  std::int64_t sequence_length = 0;
  std::int64_t windows =
      0;  ///< sequences in the data: with seed and length, what fixes their order
  std::string order = "shuffled";  ///< data.order
};
std::string to_json(const TrainerState& state);
/// Throws FormatError naming `path`.
TrainerState parse_trainer_state(const std::string& text, const std::string& path);

/// One file of tensors that a rank has written.
struct ShardRecord {
  std::string file;
  std::uint64_t hash = 0;
  std::int64_t bytes = 0;  ///< of the tensors in it
  std::vector<std::string> tensors;
};
std::string to_json(const std::vector<ShardRecord>& records);
std::vector<ShardRecord> parse_shard_records(const std::string& text, const std::string& source);

/// The text of Hugging Face's index: which tensor is in which file.
std::string index_json(const std::vector<ShardRecord>& shards);
/// tensor -> file. Throws FormatError naming `path`; a file name that leaves the directory is
/// refused.
std::map<std::string, std::string> parse_index(const std::string& text, const std::string& path);

/// "step-00000120".
std::string checkpoint_name(std::int64_t step);
/// The directory where a run keeps its checkpoints.
Path checkpoints_directory(const Path& run_directory);
/// Steps of the complete checkpoints in `directory`, ascending.
std::vector<std::int64_t> complete_checkpoints(FileSystem& files, const Path& directory);
/// Removes one. A crash leaves no half of it under the name of a complete one.
void remove_checkpoint(FileSystem& files, const Path& directory, std::int64_t step);
/// Removes all but the last `keep` complete ones.
void remove_old_checkpoints(FileSystem& files, const Path& directory, std::int64_t keep);
/// Removes what an interrupted writer left in `directory`.
void remove_incomplete_checkpoints(FileSystem& files, const Path& directory);

}  // namespace cartesian
