#pragma once
// PhaseTimes: seconds of a rank's compute thread by phase of the step.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/clock.h"

namespace cartesian {

enum class Phase : std::uint8_t {
  attention,
  dense_ffn,
  router,
  experts,
  exchange,
  head,
  gradient_sync,
  optimizer,
  other
};
inline constexpr std::size_t kPhases = 9;

constexpr std::string_view name_of(Phase phase) {
  constexpr std::array<std::string_view, kPhases> kNames = {"attention",     "dense_ffn", "router",
                                                            "experts",       "exchange",  "head",
                                                            "gradient_sync", "optimizer", "other"};
  return kNames.at(static_cast<std::size_t>(phase));
}

class PhaseTimes {
 public:
  void add(Phase phase, Seconds time) { seconds_.at(static_cast<std::size_t>(phase)) += time; }
  Seconds operator[](Phase phase) const { return seconds_.at(static_cast<std::size_t>(phase)); }
  void clear() { seconds_.fill(Seconds{0}); }

 private:
  std::array<Seconds, kPhases> seconds_{};
};

/// Adds the time from construction to destruction to a phase.
class PhaseTimer {
 public:
  PhaseTimer(PhaseTimes& times, const Clock& clock, Phase phase)
      : times_(times), clock_(clock), phase_(phase), start_(clock.now()) {}
  ~PhaseTimer() { times_.add(phase_, clock_.now() - start_); }
  PhaseTimer(const PhaseTimer&) = delete;
  PhaseTimer& operator=(const PhaseTimer&) = delete;

 private:
  PhaseTimes& times_;
  const Clock& clock_;
  Phase phase_;
  Seconds start_;
};

}  // namespace cartesian
