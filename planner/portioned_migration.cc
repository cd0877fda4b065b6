#include "planner/portioned_migration.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/index.h"

namespace cartesian {

namespace {

/// Calls visit(index, layer, group, expert) in the order in which Placement takes replicas.
template <class Visit>
void for_each_expert(const PlacementShape& shape, Visit visit) {
  std::size_t index = 0;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int group = 0; group < shape.groups; ++group) {
      for (int expert = 0; expert < shape.experts; ++expert) {
        visit(index++, layer, group, expert);
      }
    }
  }
}

bool contains(std::span<const int> ranks, int rank) {
  return std::ranges::binary_search(ranks, rank);
}

}  // namespace

int most_slots(const Placement& placement) {
  const PlacementShape& shape = placement.shape();
  std::size_t most = 0;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int rank = 0; rank < shape.ranks; ++rank) {
      std::size_t held = 0;
      for (int group = 0; group < shape.groups; ++group) {
        held += placement.experts_on(layer, group, rank).size();
      }
      most = std::max(most, held);
    }
  }
  return static_cast<int>(most);
}

PortionedMigration::PortionedMigration(const Placement& from, const Placement& to,
                                       const PortionLimits& limits)
    : from_(from), to_(to), limits_(limits), done_(from == to) {
  check(from.shape() == to.shape(), "a placement follows another of its shape");
  limits_.slots = std::max({limits.slots, most_slots(from), most_slots(to)});
  const PlacementShape& shape = from.shape();
  held_.resize(as_index(shape.layers) * as_index(shape.ranks));
  for_each_expert(shape, [&](std::size_t index, int layer, int group, int expert) {
    const auto holders = from.replicas(layer, group, expert);
    const auto heirs = to.replicas(layer, group, expert);
    replicas_.emplace_back(holders.begin(), holders.end());
    wanted_.push_back(0);
    for (const int rank : holders) {
      ++held_[slots_of({index, rank})];
      if (!contains(heirs, rank)) {
        drops_.push_back({index, rank});
      }
    }
    for (const int rank : heirs) {
      if (!contains(holders, rank)) {
        adds_.push_back({index, rank});
        ++wanted_.back();
      }
    }
  });
}

std::size_t PortionedMigration::slots_of(const Change& change) const {
  const PlacementShape& shape = from_.shape();
  const std::size_t layer = change.expert / (as_index(shape.groups) * as_index(shape.experts));
  return layer * as_index(shape.ranks) + as_index(change.rank);
}

bool PortionedMigration::fits(const MigrationPortion& portion, std::size_t more) const {
  const double replicas = portion.replicas + static_cast<double>(more);
  return limits_.bytes_per_portion == 0 || portion.replicas == 0 ||
         replicas * limits_.expert_bytes <= limits_.bytes_per_portion;
}

bool PortionedMigration::make_room(const Change& add) {
  const std::size_t slots = slots_of(add);
  if (held_[slots] < limits_.slots) {
    return true;
  }
  const auto spare = std::ranges::find_if(drops_, [&](const Change& change) {
    return slots_of(change) == slots && replicas_[change.expert].size() > 1;
  });
  if (spare == drops_.end()) {
    return false;
  }
  drop(as_index(spare - drops_.begin()));
  return true;
}

void PortionedMigration::drop(std::size_t index) {
  const Change change = drops_[index];
  drops_.erase(drops_.begin() + static_cast<std::ptrdiff_t>(index));
  std::erase(replicas_[change.expert], change.rank);
  --held_[slots_of(change)];
}

void PortionedMigration::take(std::size_t index, MigrationPortion& portion) {
  const Change change = adds_[index];
  adds_.erase(adds_.begin() + static_cast<std::ptrdiff_t>(index));
  std::vector<int>& ranks = replicas_[change.expert];
  ranks.insert(std::ranges::lower_bound(ranks, change.rank), change.rank);
  ++held_[slots_of(change)];
  ++portion.replicas;
  portion.bytes = portion.replicas * limits_.expert_bytes;
  if (--wanted_[change.expert] > 0) {
    return;
  }
  for (std::size_t i = drops_.size(); i-- > 0;) {
    if (drops_[i].expert == change.expert) {
      drop(i);
    }
  }
}

void PortionedMigration::take_adds(MigrationPortion& portion) {
  // What is taken may free slots of ranks that were passed over.
  for (bool took = true; took;) {
    took = false;
    for (std::size_t i = 0; i < adds_.size();) {
      if (!fits(portion, 1)) {
        return;
      }
      if (make_room(adds_[i])) {
        take(i, portion);
        took = true;
      } else {
        ++i;
      }
    }
  }
}

std::vector<PortionedMigration::Change> PortionedMigration::find_swap() const {
  // A full rank that gets something gives something up, which has no other replica now and so is
  // wanted elsewhere, on a rank that is full, too: following that ends in a cycle.
  const auto same = [](const Change& a, const Change& b) {
    return a.expert == b.expert && a.rank == b.rank;
  };
  std::vector<Change> path;
  Change at = adds_.front();
  while (true) {
    const auto seen = std::ranges::find_if(path, [&](const Change& c) { return same(c, at); });
    if (seen != path.end()) {
      return {seen, path.end()};
    }
    path.push_back(at);
    const auto given = std::ranges::find_if(
        drops_, [&](const Change& change) { return slots_of(change) == slots_of(at); });
    check(given != drops_.end(), "a full rank that gets an expert gives one up");
    at = *std::ranges::find(adds_, given->expert, &Change::expert);
  }
}

bool PortionedMigration::take_swap(MigrationPortion& portion) {
  const std::vector<Change> swap = find_swap();
  if (!fits(portion, swap.size())) {
    return false;
  }
  for (const Change& change : swap) {
    const auto add = std::ranges::find_if(adds_, [&](const Change& other) {
      return other.expert == change.expert && other.rank == change.rank;
    });
    take(as_index(add - adds_.begin()), portion);
  }
  for (const Change& change : swap) {
    while (held_[slots_of(change)] > limits_.slots) {
      const bool dropped = make_room(change);
      check(dropped, "what a full rank gives up in a swap has another replica");
    }
  }
  return true;
}

std::optional<MigrationPortion> PortionedMigration::next() {
  if (done_) {
    return std::nullopt;
  }
  MigrationPortion portion{.placement = to_};
  do {
    take_adds(portion);
  } while (!adds_.empty() && fits(portion, 1) && take_swap(portion));
  portion.over_budget = limits_.bytes_per_portion > 0 && portion.bytes > limits_.bytes_per_portion;
  done_ = adds_.empty();
  if (!done_) {
    Placement placement(from_.shape(), replicas_);
    if (from_.score_nodes() > 0) {
      std::vector<float> scores;
      const PlacementShape& shape = from_.shape();
      for (int layer = 0; layer < shape.layers; ++layer) {
        for (int expert = 0; expert < shape.experts; ++expert) {
          const auto row = from_.pivot_scores(layer, expert);
          scores.insert(scores.end(), row.begin(), row.end());
        }
      }
      placement = placement.with_pivot_scores(from_.score_nodes(), std::move(scores));
    }
    portion.placement = std::move(placement);
  }
  return portion;
}

}  // namespace cartesian
