#include "runtime/train/step_timeline.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/chrome_trace.h"
#include "base/index.h"
#include "comm/collectives.h"

namespace cartesian {

namespace {

constexpr int kThreadsOfRank = 256;  // numbers: the rest of the lanes would share the last one
constexpr int kLanes = kThreadsOfRank - 3;

/// What is on its way at once stands in lanes of its own: [spans], of spans in order of posting.
std::vector<int> lanes_of(const std::vector<CommSpan>& spans) {
  std::vector<Seconds> ends;  // of each lane's last span
  std::vector<int> lanes;
  for (const CommSpan& span : spans) {
    auto free = std::ranges::find_if(ends, [&](Seconds end) { return end <= span.posted; });
    if (free == ends.end() && ends.size() < as_index(kLanes)) {
      free = ends.insert(ends.end(), Seconds{0});
    } else if (free == ends.end()) {
      free = std::prev(ends.end());
    }
    *free = span.ended;
    lanes.push_back(static_cast<int>(free - ends.begin()));
  }
  return lanes;
}

}  // namespace

StepTimeline::StepTimeline(std::int64_t steps, const Clock& clock, TimedTransport& transport,
                           PhaseTimes& times, const Topology& topology)
    : left_(steps),
      clock_(clock),
      transport_(transport),
      times_(times),
      node_(topology.node(transport.rank())) {}

void StepTimeline::begin_step() {
  if (left_ == 0 || !warm_ || recording_) {
    return;
  }
  barrier(transport_, {"timeline"});
  recording_ = true;
  zero_ = clock_.now();
  times_.record(&phases_);
  transport_.record(&messages_);
}

std::optional<std::string> StepTimeline::end_step() {
  warm_ = true;
  if (!recording_ || --left_ > 0) {
    return std::nullopt;
  }
  recording_ = false;
  times_.record(nullptr);
  transport_.record(nullptr);
  ChromeTrace whole;
  for (const std::string& events : gather(transport_, 0, events_of_rank(), {"timeline"})) {
    whole.add_events(events);
  }
  return transport_.rank() == 0 ? std::optional(whole.to_json()) : std::nullopt;
}

std::string StepTimeline::events_of_rank() const {
  const int rank = transport_.rank();
  const int process = node_ + 1;
  const int thread = 1 + rank * kThreadsOfRank;
  const auto since = [&](Seconds time) { return (time - zero_).count(); };
  ChromeTrace trace;
  trace.name_process(process, fmt::format("node {}", node_), node_);
  trace.name_thread(process, thread, fmt::format("rank {}", rank), thread);
  for (const PhaseSpan& span : phases_) {
    trace.add({.process = process,
               .thread = thread,
               .name = name_of(span.phase),
               .category = "phase",
               .start_s = since(span.start),
               .end_s = since(span.end),
               .args = {}});
  }
  trace.name_thread(process, thread + 1, fmt::format("rank {} waits", rank), thread + 1);
  std::vector<CommSpan> messages = messages_;
  std::ranges::stable_sort(messages, {}, &CommSpan::posted);
  const std::vector<int> lanes = lanes_of(messages);
  const int used = lanes.empty() ? 0 : 1 + std::ranges::max(lanes);
  for (int lane = 0; lane < used; ++lane) {
    trace.name_thread(process, thread + 2 + lane, fmt::format("rank {} messages", rank),
                      thread + 2 + lane);
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const CommSpan& span = messages[i];
    const std::string args =
        fmt::format("\"layer\": {}, \"bytes_sent\": {}", span.phase.layer, span.bytes_sent);
    trace.add({.process = process,
               .thread = thread + 1,
               .name = span.phase.name,
               .category = "wait",
               .start_s = since(span.wait_began),
               .end_s = since(span.ended),
               .args = args});
    trace.add({.process = process,
               .thread = thread + 2 + lanes[i],
               .name = span.phase.name,
               .category = "messages",
               .start_s = since(span.posted),
               .end_s = since(span.ended),
               .args = args});
  }
  return trace.events();
}

}  // namespace cartesian
