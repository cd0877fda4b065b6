#pragma once
// TrainingData: the tokens that a run trains on and validates with, in the order of the run.

#include <memory>
#include <optional>
#include <string>

#include "runtime/config/config.h"
#include "runtime/data/sample_order.h"
#include "runtime/data/token_file.h"
#include "runtime/data/token_windows.h"
#include "runtime/job.h"

namespace cartesian {

/// Immutable, thread-safe.
class TrainingData {
 public:
  /// Opens what data.* names. Throws, on every rank alike, FileError, FormatError, or ConfigError,
  /// if ranks see different files, too. Collective.
  TrainingData(Job& job, const Config& config);
  TrainingData(const TrainingData&) = delete;
  TrainingData& operator=(const TrainingData&) = delete;

  const TokenFile& train_file() const { return *train_file_; }
  const TokenWindows& train() const { return *train_; }
  const TokenWindows* valid() const {
    return valid_ ? &*valid_ : nullptr;
  }  ///< null: none is named
  const SampleOrder& samples() const { return *samples_; }
  /// Of the training tokens; empty: there is none beside them.
  const std::string& tokenizer_json() const { return tokenizer_json_; }

 private:
  void check_same_files(Job& job, const DataConfig& config) const;

  std::string tokenizer_json_;
  std::unique_ptr<TokenFile> train_file_;
  std::unique_ptr<TokenFile> valid_file_;
  std::optional<TokenWindows> train_;
  std::optional<TokenWindows> valid_;
  std::optional<SampleOrder> samples_;
};

}  // namespace cartesian
