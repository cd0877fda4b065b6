#include "base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/suggest.h"

namespace cartesian {

namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;

/// "line 3, column 7" of the character number `byte`, counted from 1.
std::string position(std::string_view text, std::size_t byte) {
  const std::string_view before = text.substr(0, byte == 0 ? 0 : byte - 1);
  const auto lines = std::count(before.begin(), before.end(), '\n');
  const std::size_t line_start = before.rfind('\n') + 1;  // npos + 1 == 0
  return fmt::format("line {}, column {}", lines + 1, before.size() - line_start + 1);
}

}  // namespace

json parse_json(std::string_view text, const std::string& source) {
  // The parser takes a NUL for the end, whatever follows it; JSON has no place for one.
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos) {
    throw FormatError(
        fmt::format("{}: not valid JSON at {}: a NUL byte", source, position(text, nul + 1)));
  }
  std::vector<std::set<std::string>> keys;  // of every object that is open
  const auto watch = [&](int depth, json::parse_event_t event, json& value) {
    if (depth > kMaxDepth) {
      throw FormatError(fmt::format("{}: JSON nested deeper than {}", source, kMaxDepth));
    }
    if (event == json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) {
        throw FormatError(fmt::format("{}: key {} appears twice", source, quote(key)));
      }
    }
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), watch);
  } catch (const json::parse_error& error) {
    throw FormatError(fmt::format("{}: not valid JSON at {}", source, position(text, error.byte)));
  } catch (const json::exception& error) {  // a number out of range
    throw FormatError(fmt::format("{}: not valid JSON: {}", source, error.what()));
  }
}

void check_json_keys(const json& object, std::initializer_list<std::string_view> known,
                     const std::string& source) {
  if (!object.is_object()) {
    throw FormatError(fmt::format("{}: expected a JSON object", source));
  }
  for (const auto& item : object.items()) {
    if (std::find(known.begin(), known.end(), item.key()) == known.end()) {
      throw FormatError(fmt::format("{}: unknown key {}{}", source, quote(item.key()),
                                    did_you_mean(item.key(), known)));
    }
  }
}

const json& json_at(const json& object, std::string_view key, const std::string& source) {
  if (!object.is_object()) {
    throw FormatError(fmt::format("{}: expected a JSON object", source));
  }
  const auto found = object.find(std::string(key));
  if (found == object.end()) {
    throw FormatError(fmt::format("{}: key {} is missing", source, quote(key)));
  }
  return *found;
}

std::int64_t json_integer(const json& value, std::int64_t min, std::int64_t max,
                          const std::string& what, const std::string& source) {
  if (!value.is_number_integer()) {
    throw FormatError(fmt::format("{}: {} must be an integer", source, what));
  }
  constexpr std::uint64_t kMaxSigned = std::numeric_limits<std::int64_t>::max();
  const bool huge = value.is_number_unsigned() && value.get<std::uint64_t>() > kMaxSigned;
  if (huge || value.get<std::int64_t>() < min || value.get<std::int64_t>() > max) {
    throw FormatError(fmt::format("{}: {} is {}, which is not within [{}, {}]", source, what,
                                  value.dump(), min, max));
  }
  return value.get<std::int64_t>();
}

std::string quote(std::string_view text) {
  constexpr std::size_t kMaxLength = 120;
  const bool cut = text.size() > kMaxLength;
  const json shown = std::string(text.substr(0, kMaxLength)) + (cut ? "..." : "");
  // A cut may fall inside a character: invalid bytes are replaced.
  return shown.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace cartesian
