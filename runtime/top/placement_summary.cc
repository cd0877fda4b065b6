#include "runtime/top/placement_summary.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"

namespace cartesian {

namespace {

using nlohmann::json;

const json& list(const json& value, std::int64_t size, const std::string& what,
                 const std::string& source) {
  if (!value.is_array() || value.size() != static_cast<std::size_t>(size)) {
    throw FormatError(fmt::format("{}: {} is no list of {}", source, what, size));
  }
  return value;
}

}  // namespace

PlacementSummary parse_placement_summary(std::string_view text, const std::string& source) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  const json document = parse_json(text, source);
  const auto extent = [&](const char* key) {
    return json_integer(json_at(document, key, source), 0, kMost, key, source);
  };
  PlacementSummary summary{
      .layers = extent("layers"), .groups = extent("groups"), .experts = extent("experts")};
  for (const json& layer :
       list(json_at(document, "replicas", source), summary.layers, "replicas", source)) {
    for (const json& group : list(layer, summary.groups, "a layer of replicas", source)) {
      for (const json& ranks : list(group, summary.experts, "a group of replicas", source)) {
        summary.replicas += static_cast<std::int64_t>(ranks.size());
      }
    }
  }
  const json& plan = json_at(document, "plan", source);
  summary.plan_version =
      json_integer(json_at(plan, "plan_version", source), 0,
                   std::numeric_limits<std::int64_t>::max(), "plan_version", source);
  return summary;
}

}  // namespace cartesian
