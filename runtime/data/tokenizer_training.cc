#include "runtime/data/tokenizer_training.h"

#include <algorithm>

#include "base/random.h"
#include "runtime/data/document_stream.h"
#include "runtime/data/sentencepiece.h"
#include "runtime/data/utf8.h"

namespace cartesian {

namespace {

/// The lines of a sample of the documents that are not held out.
class SampledLines {
 public:
  SampledLines(FileSystem& files, const TokenizeOptions& options, double share,
               std::int64_t max_bytes)
      : options_(options),
        documents_(open_documents(files, options)),
        share_(share),
        key_(random_key(options.seed, "tokenizer sample")),
        bytes_left_(max_bytes) {}

  std::optional<std::string> next() {
    while (rest_.empty()) {
      if (document_) {
        document_->forget();
      }
      document_ = next_document();
      if (!document_) {
        return std::nullopt;
      }
      rest_ = document_->text;
    }
    const std::size_t size = rest_.find('\n');
    std::string line(rest_.substr(0, size));
    rest_.remove_prefix(size == std::string_view::npos ? rest_.size() : size + 1);
    return line;
  }

 private:
  std::optional<TextDocument> next_document() {
    while (auto document = documents_->next()) {
      if (document->held_out || random_uniform(key_, index_++) >= share_) {
        continue;
      }
      check_encoding(TextEncoding::utf8, document->text, document->offset,
                     options_.texts[static_cast<std::size_t>(document->source)]);
      cut(document->text);
      return document->text.empty() ? std::nullopt : document;
    }
    return std::nullopt;
  }

  /// To what is left of the budget, between two characters.
  void cut(std::string_view& text) {
    std::size_t size = std::min(text.size(), static_cast<std::size_t>(bytes_left_));
    bytes_left_ -= static_cast<std::int64_t>(size);
    while (size > 0 && size < text.size() && is_utf8_continuation(text[size])) {
      --size;
    }
    text = text.substr(0, size);
  }

  const TokenizeOptions& options_;
  std::unique_ptr<DocumentStream> documents_;
  double share_;
  std::uint64_t key_;
  std::uint64_t index_ = 0;  // of the next document that is not held out
  std::int64_t bytes_left_;
  std::optional<TextDocument> document_;
  std::string_view rest_;  // of its text
};

}  // namespace

std::unique_ptr<Tokenizer> train_tokenizer(FileSystem& files, const TokenizeOptions& options,
                                           const TokenizerTraining& training) {
  const auto bytes = static_cast<double>(check_tokenize_options(files, options));
  const double share = static_cast<double>(training.bytes) / (bytes * (1 - options.held_out));
  SampledLines lines(files, options, share, training.bytes);
  return make_sentencepiece_tokenizer(
      train_sentencepiece({.vocabulary = training.vocabulary, .model_type = training.model_type},
                          [&] { return lines.next(); }),
      "the trained model");
}

}  // namespace cartesian
