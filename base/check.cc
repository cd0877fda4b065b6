#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace cartesian {

void fail_check(std::string_view message, const std::source_location& where) {
  std::fprintf(stderr, "%s:%u: %s: %.*s\n", where.file_name(), static_cast<unsigned>(where.line()),
               where.function_name(), static_cast<int>(message.size()), message.data());
  std::abort();
}

}  // namespace cartesian
