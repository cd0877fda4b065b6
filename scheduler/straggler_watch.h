#pragma once
// StragglerWatch: who is a straggler now, by the step reports of all ranks. What is said of the
// last steps comes from the middle half of them, so that a single hiccup changes nothing. When
// steps go on without all their reports, who was named is forgotten.

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "scheduler/step_report.h"
#include "scheduler/stragglers.h"

namespace cartesian {

/// Of one step, of all its reports. The phase called "experts" is what compute_s leaves out.
class StepEvidence {
 public:
  /// `shape` must outlive it.
  explicit StepEvidence(const JobShape& shape);

  /// A rank's second report changes nothing.
  void add(int rank, const StepReport& report);
  /// All ranks have reported.
  bool complete() const { return missing_ == 0; }
  /// REQUIRES: complete().
  StragglerEvidence evidence() const;

 private:
  const JobShape* shape_;
  int missing_;
  std::vector<bool> reported_;  // [ranks]
  StragglerEvidence sums_;      // of pairs of ranks, where evidence() has means
  double between_nodes_ = 0;
};

/// The step that stands for `steps`: the mean of the middle half of each figure. REQUIRES: there
/// are some, of one shape.
StragglerEvidence typical(const std::deque<StragglerEvidence>& steps);

/// Not thread-safe.
class StragglerWatch {
 public:
  static constexpr std::size_t kSteps = 8;  ///< that are looked at, of all ranks
  static constexpr int kFound = 2;          ///< times in a row, until it is named
  static constexpr int kGone = 4;           ///< times in a row, until it is not any more

  explicit StragglerWatch(JobShape shape);
  StragglerWatch(const StragglerWatch&) = delete;
  StragglerWatch& operator=(const StragglerWatch&) = delete;

  /// REQUIRES: `report` is of the shape. When it is the last of its step, stragglers are looked
  /// for.
  void add(int rank, const StepReport& report);
  /// With the figures of when they were last found.
  const std::vector<Straggler>& named() const { return named_; }
  /// The last steps, kGone or more, lack reports: nobody can be named.
  bool blind() const { return incomplete_ >= kGone; }

 private:
  struct Suspect {
    Straggler latest;
    int found = 0;  // in a row
    int gone = 0;   // in a row
    bool named = false;
  };
  void look();
  void forget();

  const JobShape shape_;
  std::map<std::int64_t, StepEvidence> open_;  // by step
  int incomplete_ = 0;                         // steps given up since the last complete one
  std::deque<StragglerEvidence> complete_;
  std::vector<Suspect> suspects_;
  std::vector<Straggler> named_;
};

}  // namespace cartesian
