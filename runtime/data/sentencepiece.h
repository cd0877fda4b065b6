#pragma once
// SentencePiece (Kudo and Richardson, EMNLP 2018, github.com/google/sentencepiece) as a Tokenizer,
// and its trainer. The library's own types stay in sentencepiece.cc.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/data/tokenizer.h"

namespace cartesian {

/// "kind" of these tokenizers' files.
inline constexpr std::string_view kSentencePieceKind = "sentencepiece";

/// A tokenizer from the contents of a model file, LLaMA's tokenizer.model for instance. Its
/// end-of-sentence piece ends a document; a begin-of-sentence piece is never given. Throws
/// FormatError, beginning with `source`, if the file is none, is damaged, or has no end-of-sentence
/// piece; so do encode() and decode() where the library refuses a model only then.
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::string model,
                                                        const std::string& source);

struct SentencePieceTraining {
  std::int64_t vocabulary = 32000;
  std::string model_type = "bpe";  ///< or "unigram"
};

/// Trains a model on the lines that `next_line` gives until it gives nothing, all of which are held
/// in memory. As LLaMA's: ids 0, 1, 2 are unknown, begin and end; characters stay as they are,
/// those that are too rare fall back to bytes, numbers are split into digits. The same lines give
/// the same model. Throws ConfigError, with the library's reason, if the lines cannot give such a
/// vocabulary.
std::string train_sentencepiece(const SentencePieceTraining& options,
                                const std::function<std::optional<std::string>()>& next_line);

}  // namespace cartesian
