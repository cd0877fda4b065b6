#pragma once
// PortionedMigration: the way from one placement to another in portions of a bounded size, by
// placements that are all valid. Not thread-safe. Equal arguments give equal portions, so that
// every rank may find the way by itself.

#include <cstddef>
#include <optional>
#include <span>
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
  /// How often next() gives one yet.
  std::size_t portions_left() const;

 private:
  /// A replica that comes or goes.
  struct Change {
    std::size_t expert = 0;  ///< index in replicas_
    int rank = 0;
  };
  struct Layer {
    std::vector<Change> adds;  ///< that are left, in order of experts and ranks
    bool stuck = false;        ///< none of them has room
  };

  std::size_t layer_of(std::size_t expert) const;
  /// Index in held_ and drops_.
  std::size_t slots_of(const Change& change) const;
  /// The ranks that `to` has an expert on.
  std::span<const int> heirs(std::size_t expert) const;
  /// Whether the portion may have so many more replicas: its first, however large, it may.
  bool fits(std::size_t more) const;
  /// Whether its rank has, or by dropping what has other replicas now has, a slot for it.
  bool make_room(const Change& add);
  void drop(Change change);
  /// layer.adds[index] is there; if it was the last of its expert, the replicas that go are
  /// dropped.
  void take(Layer& layer, std::size_t index);
  /// All that fit into the portion and into slots; false if the portion is full.
  bool take_adds(Layer& layer);
  /// REQUIRES: the layer is stuck. Adds to full ranks, in a cycle: what each rank gives up is what
  /// the next one gets.
  std::vector<Change> find_swap(const Layer& layer) const;
  /// Of the first layer that has adds left. False if it does not fit.
  bool take_swap();
  /// Whatever fits.
  void take_portion();
  /// The placement now.
  Placement current() const;

  Placement from_;
  Placement to_;
  PortionLimits limits_;
  std::vector<std::vector<int>> replicas_;  ///< of now, as Placement takes them
  std::vector<int> wanted_;                 ///< [expert] adds that are left
  std::vector<int> held_;                   ///< [layer * ranks + rank] replicas of now
  std::vector<std::vector<Change>> drops_;  ///< likewise: that are left, in order of experts
  std::vector<Layer> layers_;
  std::size_t adds_left_ = 0;
  std::size_t taken_ = 0;  ///< replicas of the portion
  bool done_ = false;
};

}  // namespace cartesian
