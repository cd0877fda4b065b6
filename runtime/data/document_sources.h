#pragma once
// DocumentSources: which source (text, kind of text) every token of a token file comes from:
// PREFIX.sources.json beside the file's document bounds.

#include <cstdint>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "runtime/data/token_file.h"

namespace cartesian {

/// Immutable, thread-safe.
class DocumentSources {
 public:
  /// Whether PREFIX.sources.json exists.
  static bool exist(FileSystem& files, const TokenFile& tokens);
  /// Throws FormatError, naming the file, if it is malformed or is not of these tokens.
  DocumentSources(FileSystem& files, const TokenFile& tokens);

  /// Of each source.
  const std::vector<std::string>& names() const { return names_; }
  /// Index into names() of token number `token`. REQUIRES: it exists.
  std::size_t source_of(std::int64_t token) const;

 private:
  std::vector<std::string> names_;
  std::vector<std::int32_t> sources_;  ///< [documents]
  std::vector<std::int64_t> ends_;     ///< [documents] number of tokens up to the end of each
};

}  // namespace cartesian
