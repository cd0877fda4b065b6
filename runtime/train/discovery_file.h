#pragma once
// DiscoveryFile: tells Prometheus where a run's metrics are (file_sd), as long as it lives; what is
// left behind tells it that a run is missing.

#include <string>

#include "base/file_system.h"

namespace cartesian {

struct DiscoveryEntry {
  std::string target;  ///< HOST:PORT
  std::string job;
  std::string run;  ///< directory
};

/// Not thread-safe.
class DiscoveryFile {
 public:
  /// Replaces the file at once, and makes its folder if there is none; `files` must outlive it.
  /// Throws FileError.
  DiscoveryFile(FileSystem& files, Path path, const DiscoveryEntry& entry);
  /// Removes it, unless it is to be left; that this fails changes nothing.
  ~DiscoveryFile();
  DiscoveryFile(const DiscoveryFile&) = delete;
  DiscoveryFile& operator=(const DiscoveryFile&) = delete;

  void leave() { left_ = true; }

 private:
  FileSystem& files_;
  Path path_;
  bool left_ = false;
};

}  // namespace cartesian
