#include "runtime/data/tokenize_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <span>

#include "base/error.h"
#include "base/json.h"
#include "base/suggest.h"
#include "runtime/data/document_splitter.h"
#include "runtime/data/sources_writer.h"
#include "runtime/data/staged_files.h"
#include "runtime/data/token_file.h"
#include "runtime/data/tokenizer.h"
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
  for (const Corpus& corpus : options.corpora) {
    if (!(corpus.weight > 0.0 && std::isfinite(corpus.weight))) {
      throw ConfigError(
          fmt::format("--corpus: the weight {} is not a number above 0", corpus.weight));
    }
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

/// Throws if writing what bears `prefix` would destroy one of `inputs`.
void check_outputs(FileSystem& files, const Path& prefix, std::span<const Path> inputs) {
  for (const Path& output :
       {token_data_path(prefix), token_index_path(prefix), tokenizer_path(prefix),
        tokenizer_model_path(prefix), sources_path(prefix)}) {
    for (const Path& name : {output, StagedFiles::temporary_name(output)}) {
      const auto is_output = [&](const Path& input) { return files.same_file(input, name); };
      const auto input = std::ranges::find_if(inputs, is_output);
      if (input != inputs.end()) {
        throw ConfigError(
            fmt::format("{} would be overwritten by {}: choose another name with --output",
                        input->string(), name.string()));
      }
    }
  }
}

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

std::int64_t check_tokenize_options(FileSystem& files, const TokenizeOptions& options) {
  check_options(options);
  const std::int64_t bytes = check_texts(files, options.texts);
  std::vector<Path> inputs = options.texts;
  if (!options.model.empty()) {
    inputs.push_back(options.model);
  }
  check_outputs(files, options.prefix, inputs);
  check_outputs(files, held_out_prefix(options.prefix), inputs);
  return bytes;
}

void check_encoding(TextEncoding encoding, std::string_view document, std::int64_t offset,
                    const Path& text) {
  if (encoding == TextEncoding::bytes) {
    return;
  }
  if (const auto bad = find_invalid_utf8(document)) {
    throw FormatError(
        fmt::format("{}: byte {} (0x{:02X}) is not valid UTF-8; --encoding bytes takes any bytes",
                    text.string(), offset + static_cast<std::int64_t>(*bad),
                    static_cast<unsigned>(static_cast<unsigned char>(document[*bad]))));
  }
}

}  // namespace cartesian
