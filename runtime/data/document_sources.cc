#include "runtime/data/document_sources.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "base/json.h"
#include "runtime/data/sources_writer.h"

namespace cartesian {

bool DocumentSources::exist(FileSystem& files, const TokenFile& tokens) {
  return files.exists(sources_path(tokens.prefix()));
}

DocumentSources::DocumentSources(FileSystem& files, const TokenFile& tokens)
    : ends_(tokens.document_ends()) {
  const Path path = sources_path(tokens.prefix());
  const std::string source = path.string();
  const nlohmann::json json = parse_json(files.read(path), source);
  check_json_keys(json, {"version", "sources", "documents"}, source);
  json_integer(json_at(json, "version", source), 1, 1, "\"version\"", source);
  for (const nlohmann::json& name : json_at(json, "sources", source)) {
    if (!name.is_string()) {
      throw FormatError(fmt::format("{}: \"sources\" holds something other than names", source));
    }
    names_.push_back(name.get<std::string>());
  }
  const auto last = static_cast<std::int64_t>(names_.size()) - 1;
  for (const nlohmann::json& index : json_at(json, "documents", source)) {
    sources_.push_back(static_cast<std::int32_t>(
        json_integer(index, 0, last, fmt::format("document {}", sources_.size()), source)));
  }
  if (sources_.size() != ends_.size()) {
    throw FormatError(fmt::format("{}: {} documents, but {} has {}", source, sources_.size(),
                                  token_index_path(tokens.prefix()).string(), ends_.size()));
  }
}

std::size_t DocumentSources::source_of(std::int64_t token) const {
  const auto document = std::ranges::upper_bound(ends_, token);
  check(token >= 0 && document != ends_.end(), "a token of the file");
  return static_cast<std::size_t>(sources_[static_cast<std::size_t>(document - ends_.begin())]);
}

}  // namespace cartesian
