#pragma once
// Base64 (RFC 4648, section 4): bytes in a JSON string.

#include <optional>
#include <string>
#include <string_view>

namespace cartesian {

/// With padding, in one line.
std::string to_base64(std::string_view bytes);

/// Nothing if `text` is not what to_base64() gives for some bytes.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace cartesian
