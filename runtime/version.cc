#include "runtime/version.h"

namespace cartesian {
std::string_view version() { return CARTESIAN_VERSION; }
}  // namespace cartesian
