#pragma once
// What `tokenize` is asked to do: which texts become which documents, in what order, and where they
// go.

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "base/file_system.h"

namespace cartesian {

enum class TextEncoding : std::uint8_t { utf8, bytes };

/// "utf8" or "bytes". Throws ConfigError, naming --encoding, on anything else.
TextEncoding parse_text_encoding(std::string_view name);

struct TokenizeProgress {
  std::int64_t bytes_done = 0;
  std::int64_t bytes_total = 0;
};

/// Some of the texts, whose documents are mixed with those of other corpora.
struct Corpus {
  double weight = 1;      ///< over the sum of all: its share of the text, in bytes
  std::size_t texts = 0;  ///< it consists of the next so many texts
};

struct TokenizeOptions {
  std::vector<Path> texts;
  Path model = {};  ///< a tokenizer's model that is read; empty: none
  Path prefix;
  TextEncoding encoding = TextEncoding::utf8;
  /// Share of the documents that goes to PREFIX-valid, spread evenly over all texts; 0: none.
  double held_out = 0.0;
  /// Documents end at the last line end within so many bytes, or inside a longer line.
  std::int64_t document_bytes = 16 << 10;
  /// All texts, in corpora; empty: documents follow each other as in the texts, each once. See
  /// document_mixture.h.
  std::vector<Corpus> corpora = {};
  std::uint64_t seed = 1;  ///< of the mixture, and of the sample that a tokenizer is trained on
  int threads = 1;         ///< the result does not depend on them
  /// Called after every document.
  std::function<void(const TokenizeProgress&)> progress;
};

/// PREFIX-valid, where held-out documents go.
Path held_out_prefix(const Path& prefix);

/// The sum of the texts' sizes. Throws, before any text is read, ConfigError on options that cannot
/// work or outputs that would overwrite what is read, FormatError on an empty text, FileError on
/// one that cannot be read.
std::int64_t check_tokenize_options(FileSystem& files, const TokenizeOptions& options);

/// Throws FormatError, naming `text` and the byte, if its bytes from `offset` on, `document`, are
/// not in the encoding.
void check_encoding(TextEncoding encoding, std::string_view document, std::int64_t offset,
                    const Path& text);

}  // namespace cartesian
