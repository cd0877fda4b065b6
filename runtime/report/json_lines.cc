#include "runtime/report/json_lines.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"

namespace cartesian {

void JsonLine::refuse(const std::string& why) const {
  throw FormatError(fmt::format("{}: {}", place, why));
}

std::int64_t JsonLine::integer(const char* key, std::int64_t minimum) const {
  return json_integer(json_at(value, key, place), minimum, std::numeric_limits<std::int64_t>::max(),
                      key, place);
}

void read_json_lines(FileSystem& files, const Path& path,
                     const std::function<void(const JsonLine&)>& take) {
  const std::string text = files.read(path);
  std::int64_t number = 0;
  for (std::size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    const std::string place = fmt::format("{}:{}", path.string(), ++number);
    const auto json = parse_json(std::string_view(text).substr(begin, end - begin), place);
    if (!json.is_object()) {
      throw FormatError(fmt::format("{}: not a JSON object", place));
    }
    take({json, place});
  }
}

}  // namespace cartesian
