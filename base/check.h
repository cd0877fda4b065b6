#pragma once
// check(): stops on a bug (a broken invariant or precondition), never on bad input; for that see
// base/error.h.

#include <source_location>
#include <string_view>

namespace cartesian {

/// Prints "file:line: function: message" to stderr and aborts.
[[noreturn]] void fail_check(std::string_view message, const std::source_location& where);

/// Aborts with `message` and the caller's location unless `condition` holds. Thread-safe.
inline void check(bool condition, std::string_view message,
                  const std::source_location& where = std::source_location::current()) {
  if (!condition) [[unlikely]] {
    fail_check(message, where);
  }
}

}  // namespace cartesian
