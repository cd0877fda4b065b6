#include "planner/timeline.h"

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

namespace {

bool goes_on(const TimelineSpan& last, const TimelineSpan& span) {
  return last.end_s == span.start_s && last.phase == span.phase && last.backward == span.backward &&
         last.layer == span.layer && last.chunk == span.chunk;
}

}  // namespace

Timeline::Timeline(const Topology& topology, std::span<const int> nodes) {
  for (std::size_t kind = 0; kind < last_.size(); ++kind) {
    const bool card = is_card(static_cast<ResourceKind>(kind));
    last_.at(kind).assign(as_index(card ? topology.nodes() : topology.ranks()), kNotKept);
    for (const int node : nodes) {
      check(node >= 0 && node < topology.nodes(), "a timeline is of nodes of the cluster");
      if (card) {
        last_.at(kind)[as_index(node)] = kNone;
        continue;
      }
      for (const int rank : topology.ranks_of_node(node)) {
        last_.at(kind)[as_index(rank)] = kNone;
      }
    }
  }
}

void Timeline::add(const TimelineSpan& span) {
  std::int64_t& last = last_.at(static_cast<std::size_t>(span.kind))[as_index(span.unit)];
  if (last == kNotKept) {
    return;
  }
  if (last >= 0 && goes_on(spans_[as_index(last)], span)) {
    TimelineSpan& longer = spans_[as_index(last)];
    longer.end_s = span.end_s;
    longer.bytes += span.bytes;
    longer.messages += span.messages;
    return;
  }
  last = static_cast<std::int64_t>(spans_.size());
  spans_.push_back(span);
}

}  // namespace cartesian
