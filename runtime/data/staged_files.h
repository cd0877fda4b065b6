#pragma once
// StagedFiles: several files that appear together or not at all. They are written under temporary
// names and renamed once all are complete.

#include <memory>
#include <vector>

#include "base/file_system.h"

namespace cartesian {

/// Not thread-safe.
class StagedFiles {
 public:
  /// `files` must outlive this.
  explicit StagedFiles(FileSystem& files) : files_(files) {}
  /// Removes what was not published.
  ~StagedFiles();
  StagedFiles(const StagedFiles&) = delete;
  StagedFiles& operator=(const StagedFiles&) = delete;

  /// A file that will be `path`. Sync and close it before publish().
  std::unique_ptr<OutputFile> create(const Path& path);
  /// Gives every file its name, in the order of creation, after removing what had these names: a
  /// crash in between leaves some files missing, never old ones beside new ones. If the operating
  /// system refuses, none of the names is left.
  void publish();
  /// Where `path` is written before it is published.
  static Path temporary_name(const Path& path);

 private:
  FileSystem& files_;
  std::vector<Path> paths_;
};

}  // namespace cartesian
