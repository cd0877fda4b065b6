#pragma once
// JSON Lines: the logs of a run directory, one JSON object a line.

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/file_system.h"

namespace cartesian {

/// One line of a log. Its accessors throw FormatError, naming file and line.
struct JsonLine {
  const nlohmann::json& value;  ///< an object
  const std::string& place;     ///< "FILE:LINE"

  [[noreturn]] void refuse(const std::string& why) const;
  /// value[key], an integer of at least `minimum`.
  std::int64_t integer(const char* key, std::int64_t minimum) const;
};

/// Calls take() for every line. A last line without its end is left out: its run is still writing
/// it. Throws FileError if the file cannot be read, FormatError naming file and line if a line
/// holds no JSON object.
void read_json_lines(FileSystem& files, const Path& path,
                     const std::function<void(const JsonLine&)>& take);

}  // namespace cartesian
