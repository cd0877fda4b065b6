#pragma once
// What this build is: for --version, and for what a run says of the program that made it.

#include <string_view>

namespace cartesian {

/// E.g. "0.1.0".
std::string_view version();
/// The commit it was built from, with "-dirty" if files had been changed; "unknown" outside git.
std::string_view commit();
/// E.g. "GCC 12.2.0".
std::string_view compiler();
/// CMake's build type, e.g. "Release".
std::string_view build_type();

}  // namespace cartesian
