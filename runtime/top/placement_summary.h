#pragma once
// PlacementSummary: what of GET /placement.json is shown.

#include <cstdint>
#include <string>
#include <string_view>

namespace cartesian {

struct PlacementSummary {
  std::int64_t layers = 0;
  std::int64_t groups = 0;
  std::int64_t experts = 0;       ///< of a group
  std::int64_t replicas = 0;      ///< of all experts
  std::int64_t plan_version = 0;  ///< of the plan that it is
  bool operator==(const PlacementSummary&) const = default;
};

/// Throws FormatError, which begins with `source`.
PlacementSummary parse_placement_summary(std::string_view text, const std::string& source);

}  // namespace cartesian
