#include "planner/perfetto.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <iterator>
#include <set>
#include <string_view>
#include <utility>

namespace cartesian {

namespace {

constexpr double kNanosecondsPerSecond = 1e9;
constexpr double kNanosecondsPerMicrosecond = 1e3;
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
    begin_event();
    // Both ends are rounded, not the length: spans that touch must not overlap.
    const auto start = std::llround(span.start_s * kNanosecondsPerSecond);
    const auto end = std::llround(span.end_s * kNanosecondsPerSecond);
    append(R"({{"ph": "X", "pid": {}, "tid": {}, "name": "{}", "cat": "{}", )", node + 1, thread,
           name_of(span.phase), span.backward ? "backward" : "forward");
    append(R"("ts": {:.3f}, "dur": {:.3f}, "args": {{)",
           static_cast<double>(start) / kNanosecondsPerMicrosecond,
           static_cast<double>(end - start) / kNanosecondsPerMicrosecond);
    append(R"("direction": "{}")", span.backward ? "backward" : "forward");
    if (span.layer >= 0) {
      append(R"(, "layer": {})", span.layer);
    }
    if (span.chunk >= 0) {
      append(R"(, "chunk": {})", span.chunk);
    }
    if (span.messages > 0) {
      append(R"(, "bytes": {:.0f}, "messages": {})", span.bytes, span.messages);
    }
    json_ += "}}";
  }

  std::string finish() {
    json_ += "\n]}\n";
    return std::move(json_);
  }

 private:
  template <class... Values>
  void append(fmt::format_string<Values...> format, Values&&... values) {
    fmt::format_to(std::back_inserter(json_), format, std::forward<Values>(values)...);
  }

  void begin_event() {
    json_ += first_ ? "\n" : ",\n";
    first_ = false;
  }

  void name(int node, int thread, const TimelineSpan& span) {
    if (nodes_.insert(node).second) {
      metadata("process_name", node, thread, fmt::format(R"("name": "node {}")", node));
      metadata("process_sort_index", node, thread, fmt::format(R"("sort_index": {})", node));
    }
    if (threads_.insert(thread).second) {
      metadata("thread_name", node, thread,
               fmt::format(R"("name": "{}")", thread_name(span.kind, span.unit)));
      metadata("thread_sort_index", node, thread,
               fmt::format(R"("sort_index": {})", place_of(span.kind, span.unit, topology_)));
    }
  }

  void metadata(std::string_view what, int node, int thread, const std::string& value) {
    begin_event();
    append(R"({{"ph": "M", "pid": {}, "tid": {}, "name": "{}", "args": {{{}}}}})", node + 1, thread,
           what, value);
  }

  const Topology& topology_;
  std::string json_ = R"({"displayTimeUnit": "ms", "traceEvents": [)";
  bool first_ = true;
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
