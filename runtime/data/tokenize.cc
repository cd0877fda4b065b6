#include "runtime/data/tokenize.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "base/suggest.h"
#include "runtime/data/document_splitter.h"
#include "runtime/data/sources_writer.h"
#include "runtime/data/staged_files.h"
#include "runtime/data/token_file.h"
#include "runtime/data/token_file_writer.h"
#include "runtime/data/utf8.h"

namespace cartesian {

namespace {

void check_options(const TokenizeOptions& options) {
  if (options.texts.empty()) {
    throw ConfigError("tokenize needs at least one text");
  }
  if (!(options.held_out >= 0.0 && options.held_out < 1.0)) {
    throw ConfigError(
        fmt::format("--held-out = {} is not a share within [0, 1)", options.held_out));
  }
  if (options.document_bytes < DocumentSplitter::kMinBytes ||
      options.document_bytes > DocumentSplitter::kMaxBytes) {
    throw ConfigError(fmt::format("--document-bytes = {} is not within [{}, {}]",
                                  options.document_bytes, DocumentSplitter::kMinBytes,
                                  DocumentSplitter::kMaxBytes));
  }
}

/// The sum of the texts' sizes. Looks at all of them before any is read, so that a wrong last name
/// does not cost the work on the first ones.
std::int64_t check_texts(FileSystem& files, std::span<const Path> texts) {
  std::set<Path> seen;
  std::int64_t total = 0;
  for (const Path& text : texts) {
    if (!seen.insert(text.lexically_normal()).second) {
      throw ConfigError(fmt::format("text {} is given twice", text.string()));
    }
    const std::uint64_t size = files.size(text);
    if (size == 0) {
      throw FormatError(fmt::format("text {} is empty", text.string()));
    }
    total += static_cast<std::int64_t>(size);
  }
  return total;
}

/// Throws if writing what bears `prefix` would destroy a text.
void check_outputs(FileSystem& files, const Path& prefix, std::span<const Path> texts) {
  for (const Path& output : {token_data_path(prefix), token_index_path(prefix),
                             tokenizer_path(prefix), sources_path(prefix)}) {
    for (const Path& name : {output, StagedFiles::temporary_name(output)}) {
      const auto is_output = [&](const Path& text) { return files.same_file(text, name); };
      const auto text = std::ranges::find_if(texts, is_output);
      if (text != texts.end()) {
        throw ConfigError(
            fmt::format("text {} would be overwritten by {}: choose another name with --output",
                        text->string(), name.string()));
      }
    }
  }
}

void check_encoding(std::string_view document, std::size_t offset, const Path& text) {
  if (const auto bad = find_invalid_utf8(document)) {
    throw FormatError(
        fmt::format("{}: byte {} (0x{:02X}) is not valid UTF-8; --encoding bytes takes any bytes",
                    text.string(), offset + *bad,
                    static_cast<unsigned>(static_cast<unsigned char>(document[*bad]))));
  }
}

/// Whether document `index`, counted over all texts, is held out: every 1/share-th is, so that of
/// n documents the nearest integer to n * share is.
bool is_held_out(std::int64_t index, double share) {
  const auto count_before = [&](std::int64_t documents) {
    return std::floor(static_cast<double>(documents) * share + 0.5);
  };
  return count_before(index + 1) > count_before(index);
}

/// One of PREFIX and PREFIX-valid.
class Output {
 public:
  Output(StagedFiles& staged, const Path& prefix, const Tokenizer& tokenizer,
         std::span<const Path> texts)
      : tokens_(staged, prefix, tokenizer.vocabulary()), sources_(staged, prefix, texts) {
    const auto file = staged.create(tokenizer_path(prefix));
    file->append(tokenizer.to_json());
    file->sync();
    file->close();
  }

  void add_document(std::span<const std::int32_t> ids, int source) {
    tokens_.append(ids);
    tokens_.end_document();
    sources_.add_document(source);
  }
  void finish() {
    sources_.finish();
    tokens_.finish();
  }
  std::int64_t documents() const { return tokens_.documents(); }
  std::int64_t tokens() const { return tokens_.tokens(); }

 private:
  TokenFileWriter tokens_;
  SourcesWriter sources_;
};

/// PREFIX and, if documents are held out, PREFIX-valid.
class Outputs {
 public:
  Outputs(StagedFiles& staged, const Tokenizer& tokenizer, const TokenizeOptions& options)
      : tokenizer_(tokenizer),
        held_out_(options.held_out),
        train_(staged, options.prefix, tokenizer, options.texts) {
    if (held_out_ > 0.0) {
      valid_.emplace(staged, held_out_prefix(options.prefix), tokenizer, options.texts);
    }
  }

  void add_document(std::string_view text, int source) {
    ids_.clear();
    tokenizer_.encode(text, ids_);
    ids_.push_back(tokenizer_.end_of_document());
    Output& output = is_held_out(documents_, held_out_) ? *valid_ : train_;
    output.add_document(ids_, source);
    ++documents_;
  }

  void finish() {
    const std::int64_t held_out = result().held_out_documents;
    if (valid_ && (held_out == 0 || held_out == documents_)) {
      throw ConfigError(fmt::format(
          "--held-out = {} of {} documents leaves {} to train on and {} held out; smaller "
          "documents (--document-bytes) or another share are needed",
          held_out_, documents_, documents_ - held_out, held_out));
    }
    train_.finish();
    if (valid_) {
      valid_->finish();
    }
  }

  TokenizeResult result() const {
    TokenizeResult result{.documents = train_.documents(), .tokens = train_.tokens()};
    if (valid_) {
      result.held_out_documents = valid_->documents();
      result.held_out_tokens = valid_->tokens();
    }
    return result;
  }

 private:
  const Tokenizer& tokenizer_;
  double held_out_;
  Output train_;
  std::optional<Output> valid_;
  std::vector<std::int32_t> ids_;  // scratch of add_document()
  std::int64_t documents_ = 0;
};

}  // namespace

TextEncoding parse_text_encoding(std::string_view name) {
  if (name == "utf8") {
    return TextEncoding::utf8;
  }
  if (name == "bytes") {
    return TextEncoding::bytes;
  }
  constexpr std::array<std::string_view, 2> kNames = {"utf8", "bytes"};
  throw ConfigError(
      fmt::format("--encoding {} is not utf8 or bytes{}", quote(name), did_you_mean(name, kNames)));
}

Path held_out_prefix(const Path& prefix) {
  Path path = prefix;
  return path += "-valid";
}

TokenizeResult tokenize_texts(FileSystem& files, const Tokenizer& tokenizer,
                              const TokenizeOptions& options) {
  check_options(options);
  TokenizeProgress progress{.bytes_total = check_texts(files, options.texts)};
  check_outputs(files, options.prefix, options.texts);
  check_outputs(files, held_out_prefix(options.prefix), options.texts);
  if (options.prefix.has_parent_path()) {
    files.create_directories(options.prefix.parent_path());
  }
  StagedFiles staged(files);
  Outputs outputs(staged, tokenizer, options);
  for (std::size_t source = 0; source < options.texts.size(); ++source) {
    const Path& path = options.texts[source];
    const auto text = files.map(path);
    DocumentSplitter splitter(text->bytes(), options.document_bytes);
    while (const auto document = splitter.next()) {
      if (options.encoding == TextEncoding::utf8) {
        check_encoding(document->text, document->offset, path);
      }
      outputs.add_document(document->text, static_cast<int>(source));
      progress.bytes_done += static_cast<std::int64_t>(document->text.size());
      if (options.progress) {
        options.progress(progress);
      }
    }
  }
  outputs.finish();
  staged.publish();
  return outputs.result();
}

}  // namespace cartesian
