#include "runtime/train/discovery_file.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"

namespace cartesian {

DiscoveryFile::DiscoveryFile(FileSystem& files, Path path, const DiscoveryEntry& entry)
    : files_(files), path_(std::move(path)) {
  if (path_.has_parent_path()) {
    files_.create_directories(path_.parent_path());
  }
  const nlohmann::ordered_json group = {{"targets", nlohmann::ordered_json::array({entry.target})},
                                        {"labels", {{"job", entry.job}, {"run", entry.run}}}};
  files_.write_atomically(path_, nlohmann::ordered_json::array({group}).dump(2) + "\n");
}

DiscoveryFile::~DiscoveryFile() {
  if (left_) {
    return;
  }
  try {
    files_.remove_all(path_);
  } catch (const FileError&) {  // Prometheus then sees a server that is gone
  }
}

}  // namespace cartesian
