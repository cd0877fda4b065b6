#pragma once
// Timeline: when the resources of some nodes were busy in a simulated step, and with what.

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/topology.h"
#include "planner/resources.h"

namespace cartesian {

/// What one resource does without a pause for one chunk of one layer's phase.
struct TimelineSpan {
  ResourceKind kind{};
  int unit = 0;  ///< rank, or node of a card
  StepPhase phase{};
  bool backward = false;
  int layer = -1;  ///< MoE layer, 0, 1, ...; -1: gradients, of all layers
  int chunk = -1;  ///< -1: of no chunk
  double start_s = 0;
  double end_s = 0;
  double bytes = 0;  ///< of links and cards
  std::int64_t messages = 0;
};

/// Not thread-safe.
class Timeline {
 public:
  /// Keeps spans of these nodes only.
  Timeline(const Topology& topology, std::span<const int> nodes);

  /// Spans that follow each other at once and differ in bytes and messages only become one.
  /// REQUIRES: a resource's spans come in order of time, and do not overlap.
  void add(const TimelineSpan& span);
  /// In the order in which they began to be added.
  const std::vector<TimelineSpan>& spans() const { return spans_; }
  std::vector<TimelineSpan> take() { return std::move(spans_); }

 private:
  static constexpr std::int64_t kNone = -1;
  static constexpr std::int64_t kNotKept = -2;

  std::array<std::vector<std::int64_t>, kResourceKinds> last_;  // [kinds][units] their last spans
  std::vector<TimelineSpan> spans_;
};

}  // namespace cartesian
