#pragma once
// Training of a SentencePiece tokenizer on the texts that are to be tokenized.

#include <memory>
#include <string>

#include "runtime/data/tokenize_options.h"
#include "runtime/data/tokenizer.h"

namespace cartesian {

struct TokenizerTraining {
  std::int64_t vocabulary = 32000;
  std::string model_type = "bpe";               ///< or "unigram"
  std::int64_t bytes = std::int64_t{64} << 20;  ///< of text at most; bounds memory
};

/// Trains on the documents that tokenize_texts() would write to PREFIX: all of them, or, if they
/// have more bytes than `training.bytes`, a random sample. Throws as tokenize_texts() and
/// train_sentencepiece() do.
std::unique_ptr<Tokenizer> train_tokenizer(FileSystem& files, const TokenizeOptions& options,
                                           const TokenizerTraining& training);

}  // namespace cartesian
