#pragma once
// LoadedModel: a checkpoint's model, ready to run on the ranks of a job; what eval and generate
// share.

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "runtime/checkpoint/checkpoint_reader.h"
#include "runtime/job.h"
#include "runtime/model/model_rank.h"

namespace cartesian {

struct LoadOptions {
  std::string dtype = "float32";
  std::int64_t threads = 0;
};

/// --dtype and --threads.
void add_load_options(CLI::App& command, LoadOptions& options);

class LoadedModel {
 public:
  /// Throws, on every rank alike, FileError or FormatError naming the file. Collective.
  LoadedModel(Job& job, const Path& checkpoint, const LoadOptions& options);

  ModelRank& rank() { return *rank_; }

 private:
  Topology topology_;
  std::optional<Placement> placement_;
  std::optional<ModelRank> rank_;
};

}  // namespace cartesian
