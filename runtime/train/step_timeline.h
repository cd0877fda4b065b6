#pragma once
// StepTimeline: what every rank did when in some steps of training: its phases, its waits for other
// ranks, and the messages that were on their way, which they may overlap.

#include <optional>
#include <string>
#include <vector>

#include "base/topology.h"
#include "comm/timed_transport.h"
#include "runtime/model/phase_times.h"

namespace cartesian {

/// Not thread-safe. Every rank makes one alike.
class StepTimeline {
 public:
  /// Of so many steps after the first, in which memory is still taken; 0: of none. All must outlive
  /// this, but for the topology.
  StepTimeline(std::int64_t steps, const Clock& clock, TimedTransport& transport, PhaseTimes& times,
               const Topology& topology);

  /// Before and after every step; Collective where recording begins and ends. Once it has ended
  /// end_step() returns a Chrome trace on rank 0: time 0 is where all ranks met before the first
  /// step.
  void begin_step();
  std::optional<std::string> end_step();

 private:
  std::string events_of_rank() const;

  std::int64_t left_;
  bool warm_ = false;
  bool recording_ = false;
  const Clock& clock_;
  TimedTransport& transport_;
  PhaseTimes& times_;
  int node_;
  Seconds zero_{0};
  std::vector<PhaseSpan> phases_;
  std::vector<CommSpan> messages_;
};

}  // namespace cartesian
