#pragma once
// Writing HTML.

#include <string>
#include <string_view>

namespace cartesian {

/// Text that may stand between HTML's tags, or in an attribute between double quotes.
std::string html_escaped(std::string_view text);

}  // namespace cartesian
