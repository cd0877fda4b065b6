#pragma once
// Strict reading of JSON that others may have written: every error is a FormatError that names
// where the text comes from.

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace cartesian {

/// Parses one JSON value. `source` (a file, or a file and a part of it) begins every error. Refuses
/// what is not UTF-8, duplicate keys, and nesting deeper than 64.
nlohmann::json parse_json(std::string_view text, const std::string& source);

/// Throws FormatError unless `object` is an object whose keys are all in `known`.
void check_json_keys(const nlohmann::json& object, std::initializer_list<std::string_view> known,
                     const std::string& source);

/// object[key]. Throws FormatError if `object` is not an object or the key is missing.
const nlohmann::json& json_at(const nlohmann::json& object, std::string_view key,
                              const std::string& source);

/// An integer within [min, max]. `what` names it in the error.
std::int64_t json_integer(const nlohmann::json& value, std::int64_t min, std::int64_t max,
                          const std::string& what, const std::string& source);

/// `text` as a JSON string, quotes included, control characters escaped, cut when long: for names
/// from files in error sentences.
std::string quote(std::string_view text);

}  // namespace cartesian
