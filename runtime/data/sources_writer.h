#pragma once
// SourcesWriter: PREFIX.sources.json, which text every document of a token file came from:
//
//   {"version": 1, "sources": ["kjv.txt", ...], "documents": [index into sources, ...]}

#include <memory>
#include <span>

#include "runtime/data/staged_files.h"

namespace cartesian {

/// PREFIX.sources.json.
Path sources_path(const Path& prefix);

/// Not thread-safe. Streams: nothing of a document stays in memory.
class SourcesWriter {
 public:
  /// Texts are named by their file name, or by their whole path where two have the same.
  SourcesWriter(StagedFiles& staged, const Path& prefix, std::span<const Path> texts);

  void add_document(int source);
  /// Completes and syncs the file.
  void finish();

 private:
  std::unique_ptr<OutputFile> file_;
  bool first_ = true;
};

}  // namespace cartesian
