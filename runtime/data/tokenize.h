#pragma once
// tokenize: texts to a token file that training reads, with its tokenizer and the source of every
// document beside it (docs/formats.md).

#include <cstdint>

#include "base/file_system.h"
#include "runtime/data/tokenize_options.h"
#include "runtime/data/tokenizer.h"

namespace cartesian {

struct TokenizeResult {
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
  std::int64_t held_out_documents = 0;
  std::int64_t held_out_tokens = 0;
};

/// Writes PREFIX.bin, PREFIX.idx, PREFIX.tokenizer.json and PREFIX.sources.json, and the same for
/// PREFIX-valid if documents are held out; a tokenizer that has a model file is written to
/// PREFIX.tokenizer.model, too. Texts are mapped; a few documents for each thread are in memory at
/// a time, whatever the texts' sizes. Throws ConfigError on options that cannot work, FileError on
/// files that cannot be read or written, and FormatError, naming the text and the byte, on what is
/// not valid in the encoding or is empty; then there is none of the files.
TokenizeResult tokenize_texts(FileSystem& files, const Tokenizer& tokenizer,
                              const TokenizeOptions& options);

}  // namespace cartesian
