#pragma once
// tokenize: texts to a token file that training reads, with its tokenizer and the source of every
// document beside it (docs/formats.md).

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "base/file_system.h"
#include "runtime/data/tokenizer.h"

namespace cartesian {

enum class TextEncoding : std::uint8_t { utf8, bytes };

/// "utf8" or "bytes". Throws ConfigError, naming --encoding, on anything else.
TextEncoding parse_text_encoding(std::string_view name);

struct TokenizeProgress {
  std::int64_t bytes_done = 0;
  std::int64_t bytes_total = 0;
};

struct TokenizeOptions {
  std::vector<Path> texts;
  Path prefix;
  TextEncoding encoding = TextEncoding::utf8;
  /// Share of the documents that goes to PREFIX-valid, spread evenly over all texts; 0: none.
  double held_out = 0.0;
  /// Documents end at the last line end within so many bytes, or inside a longer line.
  std::int64_t document_bytes = 16 << 10;
  /// Called after every document.
  std::function<void(const TokenizeProgress&)> progress;
};

struct TokenizeResult {
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
  std::int64_t held_out_documents = 0;
  std::int64_t held_out_tokens = 0;
};

/// PREFIX-valid, where held-out documents go.
Path held_out_prefix(const Path& prefix);

/// Writes PREFIX.bin, PREFIX.idx, PREFIX.tokenizer.json and PREFIX.sources.json, and the same for
/// PREFIX-valid if documents are held out. Texts are mapped and read once, front to back. Throws
/// ConfigError on options that cannot work, FileError on files that cannot be read or written, and
/// FormatError, naming the text and the byte, on what is not valid in the encoding or is empty;
/// then there is none of the files.
TokenizeResult tokenize_texts(FileSystem& files, const Tokenizer& tokenizer,
                              const TokenizeOptions& options);

}  // namespace cartesian
