#include "planner/perfetto.h"

#include <fmt/format.h>

#include <set>

#include "base/chrome_trace.h"

namespace cartesian {

namespace {

constexpr int kRankKinds = 3;  // of resources

/// Place of a resource among those of its node: the card first, then rank by rank.
int place_of(ResourceKind kind, int unit, const Topology& topology) {
  return is_card(kind) ? static_cast<int>(kind) - static_cast<int>(ResourceKind::card_out)
                       : 2 + kRankKinds * topology.local_index(unit) + static_cast<int>(kind);
}

/// Above 0, which the viewers take for the idle process, and of no two resources the same.
int thread_of(ResourceKind kind, int unit, const Topology& topology) {
  return is_card(kind) ? 1 + kRankKinds * topology.ranks() + 2 * unit + static_cast<int>(kind) -
                             static_cast<int>(ResourceKind::card_out)
                       : 1 + kRankKinds * unit + static_cast<int>(kind);
}

std::string thread_name(ResourceKind kind, int unit) {
  switch (kind) {
    case ResourceKind::compute:
      return fmt::format("rank {} compute", unit);
    case ResourceKind::link_out:
      return fmt::format("rank {} link out", unit);
    case ResourceKind::link_in:
      return fmt::format("rank {} link in", unit);
    case ResourceKind::card_out:
      return "card out";
    case ResourceKind::card_in:
      return "card in";
  }
  return "?";
}

class Writer {
 public:
  explicit Writer(const Topology& topology) : topology_(topology) {}

  void add(const TimelineSpan& span) {
    const int node = is_card(span.kind) ? span.unit : topology_.node(span.unit);
    const int thread = thread_of(span.kind, span.unit, topology_);
    name(node, thread, span);
    std::string args = fmt::format(R"("direction": "{}")", span.backward ? "backward" : "forward");
    if (span.layer >= 0) {
      args += fmt::format(R"(, "layer": {})", span.layer);
    }
    if (span.chunk >= 0) {
      args += fmt::format(R"(, "chunk": {})", span.chunk);
    }
    if (span.messages > 0) {
      args += fmt::format(R"(, "bytes": {:.0f}, "messages": {})", span.bytes, span.messages);
    }
    trace_.add({.process = node + 1,
                .thread = thread,
                .name = name_of(span.phase),
                .category = span.backward ? "backward" : "forward",
                .start_s = span.start_s,
                .end_s = span.end_s,
                .args = args});
  }

  std::string finish() const { return trace_.to_json(); }

 private:
  void name(int node, int thread, const TimelineSpan& span) {
    if (nodes_.insert(node).second) {
      trace_.name_process(node + 1, fmt::format("node {}", node), node);
    }
    if (threads_.insert(thread).second) {
      trace_.name_thread(node + 1, thread, thread_name(span.kind, span.unit),
                         place_of(span.kind, span.unit, topology_));
    }
  }

  const Topology& topology_;
  ChromeTrace trace_;
  std::set<int> nodes_;
  std::set<int> threads_;
};

}  // namespace

std::string to_perfetto(std::span<const TimelineSpan> spans, const Topology& topology) {
  Writer writer(topology);
  for (const TimelineSpan& span : spans) {
    writer.add(span);
  }
  return writer.finish();
}

}  // namespace cartesian
