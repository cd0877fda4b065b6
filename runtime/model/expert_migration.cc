#include "runtime/model/expert_migration.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/check.h"
#include "planner/migration.h"

namespace cartesian {

namespace {

/// An expert's elements of weights, first and second moments.
std::array<std::span<float>, 3> arrays_of(ParameterStore& store, const ExpertRange& expert) {
  const ElementRange range{expert.begin, expert.end};
  return {store.weights().subspan(static_cast<std::size_t>(range.begin),
                                  static_cast<std::size_t>(range.size())),
          store.first_moments(range), store.second_moments(range)};
}

}  // namespace

ExpertMigration::ExpertMigration(Transport& transport, const Topology& topology,
                                 const Placement& from, const Placement& to, ParameterStore& store)
    : transport_(transport) {
  check(from.shape() == to.shape(), "a placement follows another of its shape");
  const int me = transport.rank();
  const PlacementShape& shape = to.shape();
  std::set<Key> wanted;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int group = 0; group < shape.groups; ++group) {
      for (int expert = 0; expert < shape.experts; ++expert) {
        const Key key{layer, group, expert};
        const auto holders = from.replicas(layer, group, expert);
        for (const int heir : to.replicas(layer, group, expert)) {
          const bool stays = std::ranges::binary_search(holders, heir);
          const int source = stays ? heir : migration_source(holders, heir, topology);
          if (source == me) {
            wanted.insert(key);
          }
          if (!stays && (source == me || heir == me)) {
            journeys_.push_back({.key = key, .source = source, .target = heir});
          }
        }
      }
    }
  }
  for (const ExpertRange& expert : store.experts()) {
    const Key key{expert.layer, expert.group, expert.expert};
    if (!wanted.contains(key)) {
      continue;
    }
    Carried& carried = carried_[key];
    carried.reserve(static_cast<std::size_t>(3 * (expert.end - expert.begin)));
    for (const std::span<float> part : arrays_of(store, expert)) {
      carried.insert(carried.end(), part.begin(), part.end());
    }
  }
}

void ExpertMigration::finish(ParameterStore& store) {
  std::map<Key, const ExpertRange*> here;
  for (const ExpertRange& expert : store.experts()) {
    const Key key{expert.layer, expert.group, expert.expert};
    here[key] = &expert;
    const auto kept = carried_.find(key);
    if (kept == carried_.end()) {
      continue;
    }
    auto at = kept->second.begin();
    for (const std::span<float> part : arrays_of(store, expert)) {
      std::copy_n(at, part.size(), part.begin());
      at += static_cast<std::ptrdiff_t>(part.size());
    }
  }
  MessageGroup group{.phase = {"migration"}, .sends = {}, .recvs = {}};
  for (const Journey& journey : journeys_) {
    if (journey.source == transport_.rank()) {
      // One message an array, as they are received.
      const std::span<const float> all = carried_.at(journey.key);
      const std::size_t size = all.size() / 3;
      for (std::size_t array = 0; array < 3; ++array) {
        group.sends.push_back({journey.target, std::as_bytes(all.subspan(array * size, size))});
      }
    } else {
      for (const std::span<float> part : arrays_of(store, *here.at(journey.key))) {
        group.recvs.push_back({journey.source, std::as_writable_bytes(part)});
        received_bytes_ += static_cast<std::int64_t>(part.size_bytes());
      }
    }
  }
  transport_.exchange(std::move(group));
  carried_.clear();
}

}  // namespace cartesian
