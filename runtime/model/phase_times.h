#pragma once
// PhaseTimes: seconds of a rank's compute thread by phase of the step.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

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

/// By the rank's clock.
struct PhaseSpan {
  Phase phase{};
  Seconds start{};
  Seconds end{};
};

class PhaseTimes {
 public:
  void add(const PhaseSpan& span) {
    seconds_.at(static_cast<std::size_t>(span.phase)) += span.end - span.start;
    if (spans_ != nullptr) {
      spans_->push_back(span);
    }
  }
  /// What is added from now on is noted in `spans`, too; nullptr: is not.
  void record(std::vector<PhaseSpan>* spans) { spans_ = spans; }
  Seconds operator[](Phase phase) const { return seconds_.at(static_cast<std::size_t>(phase)); }
  void clear() { seconds_.fill(Seconds{0}); }

 private:
  std::array<Seconds, kPhases> seconds_{};
  std::vector<PhaseSpan>* spans_ = nullptr;
};

/// Adds the time from construction to destruction to a phase.
class PhaseTimer {
 public:
  PhaseTimer(PhaseTimes& times, const Clock& clock, Phase phase)
      : times_(times), clock_(clock), phase_(phase), start_(clock.now()) {}
  ~PhaseTimer() { times_.add({phase_, start_, clock_.now()}); }
  PhaseTimer(const PhaseTimer&) = delete;
  PhaseTimer& operator=(const PhaseTimer&) = delete;

 private:
  PhaseTimes& times_;
  const Clock& clock_;
  Phase phase_;
  Seconds start_;
};

}  // namespace cartesian
