#include "base/file_system.h"

#include "base/error.h"

namespace cartesian {

void FileSystem::write_atomically(const Path& path, std::string_view contents) {
  Path temporary = path;
  temporary += ".tmp";
  try {
    const auto file = create(temporary);
    file->append(contents);
    file->sync();
    file->close();
    rename(temporary, path);
  } catch (const FileError&) {
    try {
      remove_all(temporary);
    } catch (const FileError&) {  // the first error is the one to report
    }
    throw;
  }
  sync_directory(path.parent_path());
}

}  // namespace cartesian
