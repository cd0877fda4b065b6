#pragma once
// Tokenizer: text to token ids and back. Each kind is one implementation, chosen by "kind" in
// PREFIX.tokenizer.json.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_system.h"

namespace cartesian {

/// Encodes many texts on one thread; it may remember what it has seen. Not thread-safe.
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;
  /// As Tokenizer::encode().
  virtual void encode(std::string_view text, std::vector<std::int32_t>& ids) = 0;
};

/// Immutable, thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  /// Ids are within [0, vocabulary()).
  virtual std::int64_t vocabulary() const = 0;
  /// The id that ends every document. encode() never gives it.
  virtual std::int32_t end_of_document() const = 0;
  /// Appends the ids of `text` to `ids`.
  virtual void encode(std::string_view text, std::vector<std::int32_t>& ids) const = 0;
  /// The fastest way to encode. The tokenizer must outlive it.
  virtual std::unique_ptr<TextEncoder> make_encoder() const;
  /// Ids without a text of their own (the end of a document, what a model's padded vocabulary has
  /// beyond this one) give nothing. The text need not be valid UTF-8.
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;
  /// What load_tokenizer() reads.
  virtual std::string to_json() const = 0;
  /// The contents of the file that this kind's own tools read; empty if there is none.
  virtual std::string_view model_file() const { return {}; }
};

/// Bytes are ids 0 to 255; 256 ends a document.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

/// PREFIX.tokenizer.json, and beside it the model file of a tokenizer that has one.
Path tokenizer_path(const Path& prefix);
Path tokenizer_model_path(const Path& prefix);
/// Throws ConfigError, naming both, if there are tokenizers at `model` and `data` and they differ.
/// A file at `model` that load_tokenizer() refuses, as one of Hugging Face's, tells nothing.
void check_same_tokenizer(FileSystem& files, const Path& model, const Path& data);
/// Throws FormatError, naming the file, unless it holds a tokenizer of a known kind: all of it, so
/// that the file can be carried elsewhere alone.
std::unique_ptr<Tokenizer> load_tokenizer(FileSystem& files, const Path& path);

}  // namespace cartesian
