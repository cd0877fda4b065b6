#pragma once
// Extents and ids are signed; the standard library's containers count in std::size_t.

#include <cstddef>
#include <cstdint>

namespace cartesian {

/// REQUIRES: i >= 0.
inline std::size_t as_index(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace cartesian
