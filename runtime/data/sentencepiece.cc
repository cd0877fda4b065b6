#include "runtime/data/sentencepiece.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>

#include "base/base64.h"
#include "base/error.h"
#include "runtime/data/sentencepiece_model.h"
#include "runtime/data/word_cache.h"

namespace cartesian {

namespace {

constexpr std::string_view kSpaceMark = "\u2581";  // what the library writes for a space

/// The library's reason without its place in the source, and without advice on its own options.
std::string reason(const sentencepiece::util::Status& status) {
  std::string_view text = status.error_message();
  if (const std::size_t place = text.find(")] "); place != std::string_view::npos) {
    text.remove_prefix(place + 3);
  }
  return std::string(text.substr(0, text.find(" Increase vocab_size")));
}

/// Whether a piece goes on over the beginning of a word.
bool joins_words(std::string_view piece) {
  for (std::size_t at = 1; at < piece.size(); ++at) {
    const std::string_view before = piece.substr(0, at);
    const bool begins = piece[at] == ' ' || piece.substr(at).starts_with(kSpaceMark);
    if (begins && !before.ends_with(kSpaceMark) && !before.ends_with(' ')) {
      return true;
    }
  }
  return false;
}

/// Whether the ids of a text are those of its words, one after the other, each without the space
/// before it: no merge of byte-pair encoding can reach over a word's beginning, nothing else looks
/// at more than one word, and the library writes a space before every text. The unigram model's
/// sums of scores round differently, so it is not included.
bool words_are_independent(const SentencePieceModel& model) {
  const SentencePieceModel::Normalizer& n = model.normalizer;
  return model.kind == SentencePieceModel::Kind::bpe && model.byte_fallback &&
         !model.treat_whitespace_as_suffix && n.charsmap.empty() && n.add_dummy_prefix &&
         !n.remove_extra_whitespaces && n.escape_whitespaces &&
         std::ranges::none_of(model.pieces,
                              [](const auto& piece) { return joins_words(piece.text); });
}

/// Where the first word of `text` ends: at a space that follows something else and is not the last
/// character.
std::size_t first_word(std::string_view text) {
  for (std::size_t at = text.find(' ', 1); at != std::string_view::npos && at + 1 < text.size();
       at = text.find(' ', at + 1)) {
    if (text[at - 1] != ' ' && !text.substr(0, at).ends_with(kSpaceMark)) {
      return at;
    }
  }
  return text.size();
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string model, const std::string& source)
      : by_words_(words_are_independent(parse_sentencepiece_model(model, source))),
        source_(source),
        model_(std::move(model)) {
    const auto status = processor_.LoadFromSerializedProto(model_);
    require(status);
    if (processor_.eos_id() < 0) {
      throw FormatError(fmt::format(
          "{}: the model has no end-of-sentence piece, which must end every document", source));
    }
  }

  std::int64_t vocabulary() const override { return processor_.GetPieceSize(); }
  std::int32_t end_of_document() const override { return processor_.eos_id(); }

  void encode(std::string_view text, std::vector<std::int32_t>& ids) const override {
    std::vector<int> pieces;
    const auto status = processor_.Encode(std::string(text), &pieces);
    require(status);
    ids.insert(ids.end(), pieces.begin(), pieces.end());
  }

  std::unique_ptr<TextEncoder> make_encoder() const override {
    if (!by_words_) {
      return Tokenizer::make_encoder();
    }
    class ByWords final : public TextEncoder {
     public:
      explicit ByWords(const SentencePieceTokenizer& tokenizer)
          : encode_([&tokenizer](std::string_view word, std::vector<std::int32_t>& ids) {
              tokenizer.encode(word, ids);
            }) {}
      void encode(std::string_view text, std::vector<std::int32_t>& ids) override {
        for (bool first = true; !text.empty(); first = false) {
          const std::size_t size = first_word(text);
          cache_.encode(text.substr(first ? 0 : 1, first ? size : size - 1), ids, encode_);
          text.remove_prefix(size);
        }
      }

     private:
      WordCache::Encode encode_;
      WordCache cache_;
    };
    return std::make_unique<ByWords>(*this);
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::vector<int> known;
    for (const std::int32_t id : ids) {
      if (id >= 0 && id < vocabulary()) {
        known.push_back(id);
      }
    }
    std::string text;
    const auto status = processor_.Decode(known, &text);
    require(status);
    return text;
  }

  std::string to_json() const override {
    return fmt::format(
        "{{\"kind\": \"{}\", \"vocabulary\": {}, \"end_of_document\": {},\n \"model\": \"{}\"}}\n",
        kSentencePieceKind, vocabulary(), end_of_document(), to_base64(model_));
  }
  std::string_view model_file() const override { return model_; }

 private:
  void require(const sentencepiece::util::Status& status) const {
    if (!status.ok()) {
      throw FormatError(
          fmt::format("{}: SentencePiece cannot use this model: {}", source_, reason(status)));
    }
  }

  bool by_words_;
  std::string source_;
  std::string model_;
  sentencepiece::SentencePieceProcessor processor_;
};

/// Lines as the library's trainer takes them.
class Lines final : public sentencepiece::SentenceIterator {
 public:
  explicit Lines(const std::function<std::optional<std::string>()>& next) : next_(next) { Next(); }

  bool done() const override { return !line_.has_value(); }
  void Next() override {
    line_ = next_();
    if (line_) {
      // The trainer leaves out lines with its separator, the tab: code would teach it nothing.
      std::ranges::replace(*line_, '\t', ' ');
    }
  }
  const std::string& value() const override { return *line_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::function<std::optional<std::string>()>& next_;
  std::optional<std::string> line_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::string model,
                                                        const std::string& source) {
  return std::make_unique<SentencePieceTokenizer>(std::move(model), source);
}

std::string train_sentencepiece(const SentencePieceTraining& options,
                                const std::function<std::optional<std::string>()>& next_line) {
  const std::unordered_map<std::string, std::string> settings = {
      {"model_type", options.model_type},
      {"vocab_size", std::to_string(options.vocabulary)},
      {"character_coverage", "0.99995"},
      {"byte_fallback", "true"},
      {"split_digits", "true"},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"max_sentence_length", "1000000000"},  // longer ones would be left out
      {"num_threads", "8"},                   // a unigram model depends on it
      {"minloglevel", "2"}};
  Lines lines(next_line);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &lines, &model);
  if (!status.ok()) {
    throw ConfigError(
        fmt::format("--vocabulary {}: SentencePiece cannot train it on these texts: {}",
                    options.vocabulary, reason(status)));
  }
  return model;
}

}  // namespace cartesian
