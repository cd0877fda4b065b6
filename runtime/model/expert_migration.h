#pragma once
// ExpertMigration: carries experts, their weights and both of AdamW's moments, from where one
// placement has them to where the next does, by messages between pairs of ranks. Not thread-safe.

#include <map>
#include <vector>

#include "base/placement.h"
#include "base/topology.h"
#include "comm/transport.h"
#include "runtime/model/parameters.h"

namespace cartesian {

class ExpertMigration {
 public:
  /// Copies the experts that this rank keeps or sends out of `store`, which has those of `from`.
  /// Transport and topology must outlive it. REQUIRES: equal shapes.
  ExpertMigration(Transport& transport, const Topology& topology, const Placement& from,
                  const Placement& to, ParameterStore& store);

  /// `store` has been laid out and allocated for `to`: its experts get their weights and moments.
  /// Call once. Collective. Throws CommError.
  void finish(ParameterStore& store);

  /// Of what other ranks sent.
  std::int64_t received_bytes() const { return received_bytes_; }

 private:
  /// An expert as it travels.
  struct Key {
    int layer = 0;
    int group = 0;
    int expert = 0;
    auto operator<=>(const Key&) const = default;
  };
  /// To another rank.
  struct Journey {
    Key key;
    int source = 0;
    int target = 0;
  };
  /// [weights, first moments, second moments].
  using Carried = std::vector<float>;

  Transport& transport_;
  std::vector<Journey> journeys_;  ///< of this rank, in the order of all ranks
  std::map<Key, Carried> carried_;
  std::int64_t received_bytes_ = 0;
};

}  // namespace cartesian
