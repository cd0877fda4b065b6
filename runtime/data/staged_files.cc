#include "runtime/data/staged_files.h"

#include <set>

#include "base/error.h"

namespace cartesian {

namespace {

void try_to_remove(FileSystem& files, const Path& path) {
  try {
    files.remove_all(path);
  } catch (const FileError&) {  // cleaning up after an error that is already on its way
  }
}

}  // namespace

StagedFiles::~StagedFiles() {
  for (const Path& path : paths_) {
    try_to_remove(files_, temporary_name(path));
  }
}

std::unique_ptr<OutputFile> StagedFiles::create(const Path& path) {
  if (files_.exists(path)) {
    (void)files_.size(path);  // throws unless it is a regular file: publish() would remove it
  }
  auto file = files_.create(temporary_name(path));
  paths_.push_back(path);
  return file;
}

void StagedFiles::publish() {
  for (auto path = paths_.rbegin(); path != paths_.rend(); ++path) {
    files_.remove_all(*path);
  }
  std::set<Path> directories;
  try {
    for (const Path& path : paths_) {
      files_.rename(temporary_name(path), path);
      directories.insert(path.parent_path());
    }
    for (const Path& directory : directories) {
      files_.sync_directory(directory);
    }
  } catch (const FileError&) {
    for (const Path& path : paths_) {
      try_to_remove(files_, path);
    }
    throw;
  }
  paths_.clear();
}

Path StagedFiles::temporary_name(const Path& path) {
  Path temporary = path;
  temporary += ".tmp";
  return temporary;
}

}  // namespace cartesian
