#pragma once
// CheckpointReader: opens a checkpoint directory, ours or one made elsewhere with the same layout
// (docs/formats.md), for any number of ranks and any placement: a rank reads the tensors it holds,
// by name, from whichever file has them.

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/file_system.h"
#include "base/safetensors.h"
#include "runtime/checkpoint/checkpoint_files.h"
#include "runtime/model/model_config.h"
#include "runtime/model/parameters.h"

namespace cartesian {

class CheckpointReader {
 public:
  /// Reads config.json and the indices. Throws FileError or FormatError naming the file;
  /// `directory` itself is named if it is no checkpoint.
  CheckpointReader(FileSystem& files, Path directory);

  const ModelConfig& model() const { return model_; }
  const Path& directory() const { return directory_; }
  /// Where training stood; empty in directories made elsewhere.
  const std::optional<TrainerState>& trainer_state() const { return state_; }

  /// Compares files with checksums.json, if there is one: every file, or all but the optimizer's.
  /// Throws FormatError naming the first that was altered. Reads the whole checkpoint: one rank is
  /// enough.
  void verify(bool with_optimizer = true) const;
  /// Reads the weights of `parameters`. Throws FormatError naming what is missing or misshapen, and
  /// what model() has no place for: a bias left out would change every result without a word.
  void read_weights(ParameterStore& parameters);
  /// Reads the moments that `parameters` has. REQUIRES: trainer_state().
  void read_moments(ParameterStore& parameters);

 private:
  using Index = std::map<std::string, std::string>;
  Index read_index(const char* index_file, const char* single_file);
  void refuse_unknown_weights() const;
  void read_tensor(const Index& index, const std::string& name, const Shape& shape,
                   std::span<float> out);

  FileSystem& files_;
  Path directory_;
  ModelConfig model_;
  std::optional<TrainerState> state_;
  Index weights_;
  std::map<std::string, std::unique_ptr<SafetensorsReader>> open_;
};

/// Throws ConfigError naming the first key in which `checkpoint` and `configured` differ.
/// max_position_embeddings may.
void check_same_model(const ModelConfig& checkpoint, const ModelConfig& configured,
                      const std::string& directory);

}  // namespace cartesian
