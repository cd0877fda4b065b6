#pragma once
// CheckpointWriter: writes checkpoints while training goes on. begin() copies this rank's share of
// weights and moments and returns; a thread writes and syncs them under a temporary name; commit()
// makes the checkpoint complete by one rename when every rank's share is on disk. Killed at any
// moment, a run keeps its last complete checkpoint.

#include <exception>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/file_system.h"
#include "comm/transport.h"
#include "runtime/checkpoint/checkpoint_files.h"
#include "runtime/model/model_config.h"
#include "runtime/model/parameters.h"

namespace cartesian {

/// What a checkpoint holds beside the tensors.
struct CheckpointInfo {
  ModelConfig model;
  TrainerState state;
  std::string tokenizer_json;  ///< empty: none
};

class CheckpointWriter {
 public:
  /// `directory` holds the checkpoints. Arguments must outlive the writer.
  CheckpointWriter(FileSystem& files, Transport& transport, Path directory);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Starts writing. REQUIRES: no checkpoint in progress. Collective.
  void begin(ParameterStore& parameters, CheckpointInfo info);
  bool in_progress() const { return job_.has_value(); }
  /// Whether this rank's share is written (or has failed): when it is so on every rank, commit()
  /// will not wait.
  bool written() const;
  /// Waits, however long that takes, until every rank's share is written (or has failed). REQUIRES:
  /// a checkpoint in progress. Collective.
  void wait();
  /// Waits as wait() does, then completes the checkpoint and returns its path. Throws on every rank
  /// alike if any rank could not write, naming rank, file and reason; earlier checkpoints are
  /// untouched. Collective.
  Path commit();

 private:
  struct Snapshot;
  struct WriteJob;
  /// Copies what this rank writes, wherever it is.
  void fill(ParameterStore& parameters, Snapshot& snapshot);
  void write_shards(WriteJob& job);
  void finish_directory(const WriteJob& job, const std::vector<std::vector<ShardRecord>>& shards);
  Path temporary_path(std::int64_t step) const;

  FileSystem& files_;
  Transport& transport_;
  Path directory_;
  std::optional<std::unique_ptr<WriteJob>> job_;
};

}  // namespace cartesian
