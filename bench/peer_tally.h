#pragma once
// What comes of comparing plans with a peer's, case by case.

#include <string>

namespace cartesian::bench {

/// What a placement needs, per token. Loads are of the most loaded node over the mean.
struct Measured {
  double copies = 0;      ///< on the held-out trace, pivots by its predictions if it has any
  double oracle = 0;      ///< likewise, pivots by B's true choices
  double planned_on = 0;  ///< on the trace that was planned on, by the oracle: what is minimised
  double load = 0;        ///< of A and B together, where it was planned on: what is capped
  double phase_load = 0;  ///< of A alone or B alone, the worse: one follows the other
  double held_out_load = 0;
};

/// A peer's placement and ours under its load.
struct Duel {
  Measured peer;
  Measured ours;
};

double percent_fewer(double ours, double peer);

class Tally {
 public:
  explicit Tally(std::string peer) : peer_(std::move(peer)) {}

  /// Duels in which nothing travels say nothing.
  void add(const std::string& name, const Duel& duel);
  /// Copies, in geometric mean, as a share of the peer's.
  double fewer() const;
  bool never_more() const { return more_ == 0; }
  bool always_fewer() const { return more_ == 0 && equal_ == 0; }
  bool within_caps() const { return heavier_ == 0; }
  /// Means, the worst case, and every case that is not as it should be.
  void print() const;

 private:
  std::string peer_;
  std::string notes_;
  std::string worst_name_;
  double worst_ = 0;  // ours over the peer's
  int count_ = 0;
  int more_ = 0;
  int more_where_planned_ = 0;
  int equal_ = 0;
  int heavier_ = 0;
  double log_sum_ = 0;
  double log_sum_where_planned_ = 0;
  Measured ours_;  // sums
  Measured theirs_;
};

}  // namespace cartesian::bench
