#pragma once
// Random exchanges that every rank can compute on its own: who has which tokens, what they chose,
// where the experts are. What an exchange must yield then follows from the contract, written out
// straight-line, without messages.

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "base/itinerary.h"
#include "base/placement.h"
#include "base/random.h"
#include "base/topology.h"

namespace cartesian::testing_ranks {

/// Draws from [0, bound), one after the other, the same on every rank.
class Draw {
 public:
  explicit Draw(std::uint64_t seed) : key_(random_key(seed, "exchange scenario")) {}
  int below(int bound) {
    return static_cast<int>(random_bits(key_, next_++) % static_cast<std::uint64_t>(bound));
  }

 private:
  std::uint64_t key_;
  std::uint64_t next_ = 0;
};

struct Scenario {
  Topology topology;
  Placement placement;
  int choices = 1;
  std::int64_t hidden = 1;
  /// experts[rank][token * choices + j]; negative unused.
  std::vector<std::vector<std::int32_t>> experts{};
  std::vector<std::int64_t> first_token{};  ///< global index of each rank's first token

  std::int64_t tokens(int rank) const {
    return static_cast<std::int64_t>(experts[static_cast<std::size_t>(rank)].size()) / choices;
  }
};

inline constexpr int kLayer = 1;
inline constexpr int kGroup = 1;

inline Topology random_topology(Draw& draw, int ranks) {
  std::vector<int> sizes;
  for (int left = ranks; left > 0; left -= sizes.back()) {
    sizes.push_back(1 + draw.below(left));
  }
  return Topology::from_node_sizes(sizes, ranks);
}

inline Placement random_placement(Draw& draw, int experts, int ranks) {
  const PlacementShape shape{kLayer + 1, kGroup + 1, experts, ranks};
  std::vector<std::vector<int>> replicas;
  for (int i = 0; i < shape.layers * shape.groups * experts; ++i) {
    std::vector<int> all(static_cast<std::size_t>(ranks));
    std::iota(all.begin(), all.end(), 0);
    const int count = draw.below(3) == 0 ? 1 + draw.below(ranks) : 1;
    std::vector<int> chosen;
    for (int n = 0; n < count; ++n) {
      const auto pick = all.begin() + draw.below(static_cast<int>(all.size()));
      chosen.push_back(*pick);
      all.erase(pick);
    }
    std::sort(chosen.begin(), chosen.end());
    replicas.push_back(chosen);
  }
  return {shape, replicas};
}

/// Distinct experts, some choices unused.
inline std::vector<std::int32_t> random_choices(Draw& draw, int experts, int choices) {
  std::vector<std::int32_t> all(static_cast<std::size_t>(experts));
  std::iota(all.begin(), all.end(), 0);
  std::vector<std::int32_t> chosen;
  for (int j = 0; j < choices; ++j) {
    const auto pick = all.begin() + draw.below(static_cast<int>(all.size()));
    chosen.push_back(draw.below(8) == 0 ? -1 : *pick);
    all.erase(pick);
  }
  return chosen;
}

inline Scenario make_scenario(std::uint64_t seed, int ranks) {
  Draw draw(seed);
  constexpr int kHidden[] = {1, 3, 16, 17, 65, 128};
  const int experts = 1 + draw.below(9);
  Topology topology = random_topology(draw, ranks);
  Placement placement = random_placement(draw, experts, ranks);
  Scenario scenario{.topology = topology, .placement = placement};
  scenario.choices = 1 + draw.below(std::min(experts, 4));
  scenario.hidden = kHidden[draw.below(6)];
  const bool one_expert_for_all = draw.below(5) == 0;
  const bool no_token_at_all = draw.below(12) == 0;
  std::int64_t first = draw.below(1000);
  for (int rank = 0; rank < ranks; ++rank) {
    const int tokens = no_token_at_all || draw.below(4) == 0 ? 0 : draw.below(70);
    std::vector<std::int32_t> chosen;
    for (int token = 0; token < tokens; ++token) {
      std::vector<std::int32_t> row = random_choices(draw, experts, scenario.choices);
      if (one_expert_for_all) {
        std::fill(row.begin(), row.end(), -1);
        row[0] = experts / 2;
      }
      chosen.insert(chosen.end(), row.begin(), row.end());
    }
    scenario.experts.push_back(chosen);
    scenario.first_token.push_back(first);
    first += tokens;
  }
  return scenario;
}

/// One choice of one token, as its home sees it.
struct Choice {
  int home = 0;
  std::int64_t row = 0;  ///< among home's tokens
  int column = 0;
  int expert = 0;
  int rank = 0;  ///< of the replica
};

/// The choices of a rank's tokens, in order of row and column.
inline std::vector<Choice> choices_of(const Scenario& scenario, int home) {
  std::vector<Choice> result;
  const auto k = static_cast<std::size_t>(scenario.choices);
  const std::span<const std::int32_t> experts = scenario.experts[static_cast<std::size_t>(home)];
  for (std::int64_t row = 0; row < scenario.tokens(home); ++row) {
    std::vector<std::int32_t> ranks(k);
    const auto chosen = experts.subspan(static_cast<std::size_t>(row) * k, k);
    choose_replicas({.layer = kLayer,
                     .group = kGroup,
                     .origin = home,
                     .home = home,
                     .token = scenario.first_token[static_cast<std::size_t>(home)] + row,
                     .experts = chosen},
                    scenario.placement, scenario.topology, ranks);
    for (std::size_t j = 0; j < k; ++j) {
      if (chosen[j] >= 0) {
        result.push_back({home, row, static_cast<int>(j), chosen[j], ranks[j]});
      }
    }
  }
  return result;
}

/// Whole numbers that name token and column, small enough for bfloat16 to hold.
inline float token_value(std::int64_t global_token, std::int64_t column) {
  return static_cast<float>((global_token * 31 + column * 7) % 201 - 100);
}
inline float gate_value(std::int64_t global_token, int expert) {
  return 0.25F + static_cast<float>((global_token * 5 + expert * 3) % 16) / 32.0F;
}

}  // namespace cartesian::testing_ranks
