#pragma once
// PortionedMigration: the way from one placement to another in portions of a bounded size, by
// placements that are all valid. Not thread-safe. Equal arguments give equal portions, so that
// every rank may find the way by itself.

#include <optional>
#include <vector>

#include "base/placement.h"

namespace cartesian {

struct PortionLimits {
  double expert_bytes = 0;       ///< what moves of an expert
  double bytes_per_portion = 0;  ///< 0: all in one portion
  /// Of a rank in a layer, both groups together; never less than what either placement needs.
  int slots = 0;
};

struct MigrationPortion {
  Placement placement;       ///< once the portion has moved
  int replicas = 0;          ///< that come to ranks which did not have them
  double bytes = 0;          ///< of those
  bool over_budget = false;  ///< one replica, or one swap among full ranks, is more than a portion
};

/// The most replicas that a rank has of a layer, both groups together.
int most_slots(const Placement& placement);

class PortionedMigration {
 public:
  /// REQUIRES: equal shapes.
  PortionedMigration(const Placement& from, const Placement& to, const PortionLimits& limits);

  /// None if nothing is left. The last portion's placement is `to`; the others have the pivot
  /// scores of `from`. In every placement each expert has a replica and no rank has more of a layer
  /// than its slots. An expert gives up the replicas that `to` does not have once it has all of
  /// those that `to` has, or earlier if a slot is wanted.
  std::optional<MigrationPortion> next();
  bool done() const { return done_; }

 private:
  /// A replica that comes or goes.
  struct Change {
    std::size_t expert = 0;  ///< index in replicas_
    int rank = 0;
  };

  /// Index in held_.
  std::size_t slots_of(const Change& change) const;
  /// Whether the portion may have so many more replicas: its first, however large, it may.
  bool fits(const MigrationPortion& portion, std::size_t more) const;
  /// Whether its rank has, or by dropping what has other replicas now has, a slot for it.
  bool make_room(const Change& add);
  void drop(std::size_t index);
  /// adds_[index] is there; if it was the last of its expert, the replicas that go are dropped.
  void take(std::size_t index, MigrationPortion& portion);
  /// All that fit into the portion and into slots.
  void take_adds(MigrationPortion& portion);
  /// REQUIRES: no add has room. Adds to full ranks, in a cycle: what each rank gives up is what the
  /// next one gets.
  std::vector<Change> find_swap() const;
  /// False if it does not fit.
  bool take_swap(MigrationPortion& portion);

  Placement from_;
  Placement to_;
  PortionLimits limits_;
  std::vector<std::vector<int>> replicas_;  ///< of now, as Placement takes them
  std::vector<int> wanted_;                 ///< [expert] adds that are left
  std::vector<int> held_;                   ///< [layer * ranks + rank] replicas of now
  std::vector<Change> adds_;                ///< that are left, in order of experts and ranks
  std::vector<Change> drops_;               ///< likewise
  bool done_ = false;
};

}  // namespace cartesian
