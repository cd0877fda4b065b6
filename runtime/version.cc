#include "runtime/version.h"

#include "runtime/commit.inc"  // made by cmake/CartesianCommit.cmake in the build folder

namespace cartesian {

std::string_view version() { return CARTESIAN_VERSION; }

std::string_view commit() { return CARTESIAN_COMMIT; }

std::string_view compiler() {
#ifdef __clang__
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

std::string_view build_type() { return CARTESIAN_BUILD_TYPE; }

}  // namespace cartesian
