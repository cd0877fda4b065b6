#pragma once
// TokenFileWriter: writes a token file (token_file.h) document by document, one sequence each.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/data/staged_files.h"
#include "runtime/data/token_file.h"

namespace cartesian {

/// Not thread-safe. Keeps four bytes a document in memory.
class TokenFileWriter {
 public:
  /// `staged` must outlive this and publishes the pair: the data's name first, the index's last.
  /// Tokens take two bytes if `vocabulary` fits them, else four, by Megatron's rule.
  TokenFileWriter(StagedFiles& staged, Path prefix, std::int64_t vocabulary);

  /// Continues the document. REQUIRES: tokens within the vocabulary.
  void append(std::span<const std::int32_t> tokens);
  /// Throws FormatError if the document has more than 2^31 - 1 tokens.
  void end_document();
  /// Completes and syncs both files. REQUIRES: no document is open; nothing is appended after.
  void finish();

  std::int64_t documents() const { return static_cast<std::int64_t>(lengths_.size()); }
  std::int64_t tokens() const { return tokens_; }

 private:
  StagedFiles& staged_;
  Path prefix_;
  std::int64_t vocabulary_;
  TokenType type_;
  std::unique_ptr<OutputFile> data_;
  std::vector<std::int32_t> lengths_;
  std::vector<std::uint16_t> narrow_;  // scratch of append()
  std::int64_t tokens_ = 0;
  std::int64_t open_ = 0;  // tokens of the document being written
};

}  // namespace cartesian
