#include "runtime/top/metrics_source.h"

#include <fmt/format.h>

#include <string>

#include "base/error.h"
#include "runtime/top/metrics_text.h"

namespace cartesian {

MetricsSource::MetricsSource(const MetricsTarget& target, const Clock& clock,
                             const MetricsClientOptions& options)
    : target_(target), clock_(clock), client_(options) {}

std::optional<JobSnapshot> MetricsSource::read() {
  const std::optional<MetricsAddress> address = target_.find();
  if (!address) {
    return std::nullopt;
  }
  const std::string url = "http://" + address->text();
  const std::optional<std::string> text = client_.get(*address, "/metrics");
  const Seconds at = clock_.now();
  if (!text) {
    throw Error(fmt::format("{} has no /metrics", url));
  }
  const std::string source = url + "/metrics";
  JobSnapshot snapshot = take_snapshot(parse_metrics_text(*text, source), source);
  snapshot.at = at;
  snapshot.source = address->text();
  if (const auto json = client_.get(*address, "/placement.json")) {
    snapshot.placement = parse_placement_summary(*json, url + "/placement.json");
  }
  return snapshot;
}

}  // namespace cartesian
