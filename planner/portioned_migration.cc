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
  layers_.resize(as_index(shape.layers));
  held_.resize(layers_.size() * as_index(shape.ranks));
  drops_.resize(held_.size());
  for_each_expert(shape, [&](std::size_t index, int layer, int group, int expert) {
    const auto holders = from.replicas(layer, group, expert);
    const auto heirs = to.replicas(layer, group, expert);
    replicas_.emplace_back(holders.begin(), holders.end());
    wanted_.push_back(0);
    for (const int rank : holders) {
      const Change change{index, rank};
      ++held_[slots_of(change)];
      if (!contains(heirs, rank)) {
        drops_[slots_of(change)].push_back(change);
      }
    }
    for (const int rank : heirs) {
      if (!contains(holders, rank)) {
        layers_[as_index(layer)].adds.push_back({index, rank});
        ++wanted_.back();
        ++adds_left_;
      }
    }
  });
}

std::size_t PortionedMigration::layer_of(std::size_t expert) const {
  return expert / (as_index(from_.shape().groups) * as_index(from_.shape().experts));
}

std::size_t PortionedMigration::slots_of(const Change& change) const {
  return layer_of(change.expert) * as_index(from_.shape().ranks) + as_index(change.rank);
}

std::span<const int> PortionedMigration::heirs(std::size_t expert) const {
  const std::size_t experts = as_index(from_.shape().experts);
  const std::size_t group = expert / experts % as_index(from_.shape().groups);
  return to_.replicas(static_cast<int>(layer_of(expert)), static_cast<int>(group),
                      static_cast<int>(expert % experts));
}

bool PortionedMigration::fits(std::size_t more) const {
  const auto replicas = static_cast<double>(taken_ + more);
  return limits_.bytes_per_portion == 0 || taken_ == 0 ||
         replicas * limits_.expert_bytes <= limits_.bytes_per_portion;
}

bool PortionedMigration::make_room(const Change& add) {
  const std::size_t slots = slots_of(add);
  if (held_[slots] < limits_.slots) {
    return true;
  }
  const auto spare = std::ranges::find_if(
      drops_[slots], [&](const Change& change) { return replicas_[change.expert].size() > 1; });
  if (spare == drops_[slots].end()) {
    return false;
  }
  drop(*spare);
  return true;
}

void PortionedMigration::drop(Change change) {
  const std::size_t slots = slots_of(change);
  std::erase_if(drops_[slots], [&](const Change& other) { return other.expert == change.expert; });
  std::erase(replicas_[change.expert], change.rank);
  --held_[slots];
}

void PortionedMigration::take(Layer& layer, std::size_t index) {
  const Change change = layer.adds[index];
  layer.adds.erase(layer.adds.begin() + static_cast<std::ptrdiff_t>(index));
  std::vector<int>& ranks = replicas_[change.expert];
  ranks.insert(std::ranges::lower_bound(ranks, change.rank), change.rank);
  ++held_[slots_of(change)];
  ++taken_;
  --adds_left_;
  if (--wanted_[change.expert] > 0) {
    return;
  }
  for (const int rank : std::vector<int>(ranks)) {
    if (!contains(heirs(change.expert), rank)) {
      drop({change.expert, rank});
    }
  }
}

bool PortionedMigration::take_adds(Layer& layer) {
  // What is taken may free slots of ranks that were passed over.
  for (bool took = !layer.stuck; took;) {
    took = false;
    for (std::size_t i = 0; i < layer.adds.size();) {
      if (!fits(1)) {
        return false;
      }
      if (make_room(layer.adds[i])) {
        take(layer, i);
        took = true;
      } else {
        ++i;
      }
    }
  }
  layer.stuck = true;
  return true;
}

std::vector<PortionedMigration::Change> PortionedMigration::find_swap(const Layer& layer) const {
  // A full rank that gets something gives something up, which has no other replica now and so is
  // wanted elsewhere, on a rank that is full, too: following that ends in a cycle.
  const auto same = [](const Change& a, const Change& b) {
    return a.expert == b.expert && a.rank == b.rank;
  };
  std::vector<Change> path;
  Change at = layer.adds.front();
  while (true) {
    const auto seen = std::ranges::find_if(path, [&](const Change& c) { return same(c, at); });
    if (seen != path.end()) {
      return {seen, path.end()};
    }
    path.push_back(at);
    const std::vector<Change>& given = drops_[slots_of(at)];
    check(!given.empty(), "a full rank that gets an expert gives one up");
    at = *std::ranges::find(layer.adds, given.front().expert, &Change::expert);
  }
}

bool PortionedMigration::take_swap() {
  Layer& layer = *std::ranges::find_if(layers_, [](const Layer& one) { return !one.adds.empty(); });
  const std::vector<Change> swap = find_swap(layer);
  if (!fits(swap.size())) {
    return false;
  }
  for (const Change& change : swap) {
    const auto add = std::ranges::find_if(layer.adds, [&](const Change& other) {
      return other.expert == change.expert && other.rank == change.rank;
    });
    take(layer, as_index(add - layer.adds.begin()));
  }
  for (const Change& change : swap) {
    while (held_[slots_of(change)] > limits_.slots) {
      const bool dropped = make_room(change);
      check(dropped, "what a full rank gives up in a swap has another replica");
    }
  }
  layer.stuck = false;
  return true;
}

void PortionedMigration::take_portion() {
  taken_ = 0;
  const auto take_from = [&](Layer& layer) { return take_adds(layer); };
  while (std::ranges::all_of(layers_, take_from) && adds_left_ > 0 && fits(1) && take_swap()) {
  }
  done_ = adds_left_ == 0;
}

Placement PortionedMigration::current() const {
  if (done_) {
    return to_;
  }
  Placement placement(from_.shape(), replicas_);
  if (from_.score_nodes() == 0) {
    return placement;
  }
  std::vector<float> scores;
  const PlacementShape& shape = from_.shape();
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int expert = 0; expert < shape.experts; ++expert) {
      const auto row = from_.pivot_scores(layer, expert);
      scores.insert(scores.end(), row.begin(), row.end());
    }
  }
  return placement.with_pivot_scores(from_.score_nodes(), std::move(scores));
}

std::optional<MigrationPortion> PortionedMigration::next() {
  if (done_) {
    return std::nullopt;
  }
  take_portion();
  const double bytes = static_cast<double>(taken_) * limits_.expert_bytes;
  return MigrationPortion{
      .placement = current(),
      .replicas = static_cast<int>(taken_),
      .bytes = bytes,
      .over_budget = limits_.bytes_per_portion > 0 && bytes > limits_.bytes_per_portion};
}

std::size_t PortionedMigration::portions_left() const {
  PortionedMigration copy = *this;
  std::size_t count = 0;
  for (; !copy.done_; ++count) {
    copy.take_portion();
  }
  return count;
}

}  // namespace cartesian
