#include "runtime/data/tokenizer.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/error.h"
#include "base/json.h"
#include "base/suggest.h"
#include "runtime/data/sentencepiece.h"

namespace cartesian {

namespace {

using nlohmann::json;

constexpr std::int32_t kByteValues = 256;

class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr std::string_view kKind = "bytes";

  std::int64_t vocabulary() const override { return kByteValues + 1; }
  std::int32_t end_of_document() const override { return kByteValues; }

  void encode(std::string_view text, std::vector<std::int32_t>& ids) const override {
    ids.reserve(ids.size() + text.size());
    for (const char c : text) {
      ids.push_back(static_cast<unsigned char>(c));
    }
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    text.reserve(ids.size());
    for (const std::int32_t id : ids) {
      if (id >= 0 && id < kByteValues) {
        text.push_back(static_cast<char>(static_cast<unsigned char>(id)));
      }
    }
    return text;
  }

  std::string to_json() const override {
    return fmt::format("{{\"kind\": \"{}\", \"vocabulary\": {}, \"end_of_document\": {}}}\n", kKind,
                       vocabulary(), end_of_document());
  }
};

std::unique_ptr<Tokenizer> byte_tokenizer(const json& root, const std::string& source) {
  check_json_keys(root, {"kind", "vocabulary", "end_of_document"}, source);
  return make_byte_tokenizer();
}

std::unique_ptr<Tokenizer> sentencepiece_tokenizer(const json& root, const std::string& source) {
  check_json_keys(root, {"kind", "vocabulary", "end_of_document", "model"}, source);
  const json& text = json_at(root, "model", source);
  auto model = text.is_string() ? from_base64(text.get_ref<const std::string&>()) : std::nullopt;
  if (!model) {
    throw FormatError(fmt::format("{}: \"model\" is not a base64 string", source));
  }
  return make_sentencepiece_tokenizer(std::move(*model), source);
}

class WithoutMemory final : public TextEncoder {
 public:
  explicit WithoutMemory(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  void encode(std::string_view text, std::vector<std::int32_t>& ids) override {
    tokenizer_.encode(text, ids);
  }

 private:
  const Tokenizer& tokenizer_;
};

}  // namespace

std::unique_ptr<TextEncoder> Tokenizer::make_encoder() const {
  return std::make_unique<WithoutMemory>(*this);
}

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

Path tokenizer_path(const Path& prefix) {
  Path path = prefix;
  return path += ".tokenizer.json";
}

Path tokenizer_model_path(const Path& prefix) {
  Path path = prefix;
  return path += ".tokenizer.model";
}

void check_same_tokenizer(FileSystem& files, const Path& model, const Path& data) {
  if (!files.exists(model) || !files.exists(data)) {
    return;
  }
  std::unique_ptr<Tokenizer> known;
  try {
    known = load_tokenizer(files, model);
  } catch (const FormatError&) {
    return;
  }
  if (known->to_json() != load_tokenizer(files, data)->to_json()) {
    throw ConfigError(fmt::format(
        "{} is another tokenizer than {}: the same tokens would mean other texts; tokenize all "
        "texts with the tokenizer of the model",
        data.string(), model.string()));
  }
}

std::unique_ptr<Tokenizer> load_tokenizer(FileSystem& files, const Path& path) {
  const std::string source = path.string();
  const json root = parse_json(files.read(path), source);
  const json& kind = json_at(root, "kind", source);
  if (!kind.is_string()) {
    throw FormatError(fmt::format("{}: \"kind\" must be a string", source));
  }
  const auto& name = kind.get_ref<const std::string&>();
  std::unique_ptr<Tokenizer> tokenizer;
  if (name == ByteTokenizer::kKind) {
    tokenizer = byte_tokenizer(root, source);
  } else if (name == kSentencePieceKind) {
    tokenizer = sentencepiece_tokenizer(root, source);
  } else {
    constexpr std::array kKinds = {ByteTokenizer::kKind, kSentencePieceKind};
    throw FormatError(fmt::format("{}: unknown kind of tokenizer {}{}", source, quote(name),
                                  did_you_mean(name, kKinds)));
  }
  // The numbers are there for other readers; here they can only be right or wrong.
  const auto expect = [&](const char* key, std::int64_t value) {
    json_integer(json_at(root, key, source), value, value, fmt::format("\"{}\"", key), source);
  };
  expect("vocabulary", tokenizer->vocabulary());
  expect("end_of_document", tokenizer->end_of_document());
  return tokenizer;
}

}  // namespace cartesian
