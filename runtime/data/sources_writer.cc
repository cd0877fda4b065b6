#include "runtime/data/sources_writer.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace cartesian {

Path sources_path(const Path& prefix) {
  Path path = prefix;
  return path += ".sources.json";
}

SourcesWriter::SourcesWriter(StagedFiles& staged, const Path& prefix, std::span<const Path> texts)
    : file_(staged.create(sources_path(prefix))) {
  std::map<Path, int> uses;
  for (const Path& text : texts) {
    ++uses[text.filename()];
  }
  nlohmann::json names = nlohmann::json::array();
  for (const Path& text : texts) {
    names.push_back((uses[text.filename()] == 1 ? text.filename() : text).string());
  }
  // File names need not be UTF-8; JSON must be.
  const std::string list = names.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  file_->append(fmt::format("{{\"version\": 1, \"sources\": {},\n \"documents\": [", list));
}

void SourcesWriter::add_document(int source) {
  file_->append(fmt::format("{}{}", first_ ? "" : ",", source));
  first_ = false;
}

void SourcesWriter::finish() {
  file_->append("]}\n");
  file_->sync();
  file_->close();
}

}  // namespace cartesian
