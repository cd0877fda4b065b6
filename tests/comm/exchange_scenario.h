#pragma once
// Random exchanges that every rank can compute on its own: who has which tokens, what they chose,
// where the experts are. What an exchange must yield then follows from the contract, written out
// straight-line, without messages.

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <vector>

#include "base/itinerary.h"
#include "base/placement.h"
#include "base/random.h"
#include "base/topology.h"
#include "comm/exchange.h"

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
  ExchangeOptions options;
  int choices = 1;
  std::int64_t hidden = 1;
  std::vector<std::int64_t> first_token{};  ///< [ranks + 1] global index of each rank's first token
  /// [groups][tokens * choices] by global index less the first; negative unused.
  std::array<std::vector<std::int32_t>, 2> experts{};
  std::vector<std::int32_t> expected{};  ///< what B is expected to choose: mostly what it does

  std::int64_t tokens(int rank) const {
    return first_token[static_cast<std::size_t>(rank) + 1] -
           first_token[static_cast<std::size_t>(rank)];
  }
  std::int64_t all_tokens() const { return first_token.back() - first_token.front(); }
  std::size_t row(std::int64_t token) const {
    return static_cast<std::size_t>(token - first_token.front());
  }
  std::span<const std::int32_t> chosen(int group, std::int64_t token) const {
    const auto k = static_cast<std::size_t>(choices);
    return std::span(experts.at(static_cast<std::size_t>(group))).subspan(row(token) * k, k);
  }
  std::span<const std::int32_t> expected_of(std::int64_t token) const {
    const auto k = static_cast<std::size_t>(choices);
    return std::span(expected).subspan(row(token) * k, k);
  }
};

inline constexpr int kLayer = 1;

inline Topology random_topology(Draw& draw, int ranks) {
  std::vector<int> sizes;
  for (int left = ranks; left > 0; left -= sizes.back()) {
    sizes.push_back(1 + draw.below(left));
  }
  return Topology::from_node_sizes(sizes, ranks);
}

inline Placement random_placement(Draw& draw, int groups, int experts, int ranks) {
  const PlacementShape shape{kLayer + 1, groups, experts, ranks};
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

/// Whole numbers, and gates with few digits, so that sums over experts and sub-layers are exact.
inline float token_value(std::int64_t token, std::int64_t column) {
  return static_cast<float>((token * 31 + column * 7) % 41 - 20);
}
inline float gate_value(std::int64_t token, int expert) {
  return 0.25F + static_cast<float>((token * 5 + expert * 3) % 16) / 32.0F;
}
inline float shared_weight(std::int64_t token, int group) {
  return static_cast<float>((token * 3 + group) % 7);
}
/// Of the loss, by what comes back.
inline float gradient_value(std::int64_t token, std::int64_t column) {
  return static_cast<float>((token * 11 + column * 5) % 7 - 3);
}

inline Scenario make_scenario(std::uint64_t seed, int ranks, int groups = 2) {
  Draw draw(seed);
  constexpr std::array kHidden{1, 3, 16, 17, 65, 128};
  constexpr std::array kFlows{Flow::flat, Flow::home, Flow::pivot, Flow::pivot};
  constexpr std::array kPivots{PivotBy::speculative, PivotBy::table, PivotBy::gate};
  const int experts = 1 + draw.below(9);
  Topology topology = random_topology(draw, ranks);
  Placement placement = random_placement(draw, groups, experts, ranks);
  if (draw.below(2) == 0) {
    std::vector<float> scores;
    for (int i = 0; i < (kLayer + 1) * experts * topology.nodes(); ++i) {
      scores.push_back(static_cast<float>(draw.below(100)) / 100);
    }
    placement = placement.with_pivot_scores(topology.nodes(), std::move(scores));
  }
  Scenario scenario{.topology = std::move(topology),
                    .placement = std::move(placement),
                    .options = {kFlows.at(static_cast<std::size_t>(draw.below(4))),
                                kPivots.at(static_cast<std::size_t>(draw.below(3)))}};
  scenario.choices = 1 + draw.below(std::min(experts, 4));
  scenario.hidden = kHidden.at(static_cast<std::size_t>(draw.below(6)));
  const bool one_expert_for_all = draw.below(5) == 0;
  const bool no_token_at_all = draw.below(12) == 0;
  scenario.first_token.push_back(draw.below(1000));
  for (int rank = 0; rank < ranks; ++rank) {
    const int tokens = no_token_at_all || draw.below(4) == 0 ? 0 : draw.below(70);
    scenario.first_token.push_back(scenario.first_token.back() + tokens);
  }
  for (std::int64_t token = 0; token < scenario.all_tokens(); ++token) {
    for (auto& of_group : scenario.experts) {
      std::vector<std::int32_t> row = random_choices(draw, experts, scenario.choices);
      if (one_expert_for_all) {
        std::fill(row.begin(), row.end(), -1);
        row[0] = experts / 2;
      }
      of_group.insert(of_group.end(), row.begin(), row.end());
    }
    const std::vector<std::int32_t> other = random_choices(draw, experts, scenario.choices);
    const auto k = static_cast<std::ptrdiff_t>(scenario.choices);
    const bool right = draw.below(4) != 0;
    scenario.expected.insert(scenario.expected.end(),
                             right ? scenario.experts[1].end() - k : other.begin(),
                             right ? scenario.experts[1].end() : other.end());
  }
  return scenario;
}

/// The way of one token, by the functions that planner and exchange share.
struct Way {
  std::vector<std::int32_t> a_ranks, b_ranks;
  int pivot = 0;
};

inline Way way_of(const Scenario& scenario, int home, std::int64_t token) {
  const int groups = scenario.placement.shape().groups;
  const bool pivots = groups == 2 && scenario.options.flow == Flow::pivot;
  const Placement placement = scenario.options.pivot == PivotBy::gate
                                  ? scenario.placement.without_pivot_scores()
                                  : scenario.placement;
  const auto choose = [&](int group, int origin) {
    const auto chosen = scenario.chosen(group, token);
    std::vector<std::int32_t> ranks(chosen.size());
    choose_replicas({.layer = kLayer,
                     .group = group,
                     .origin = origin,
                     .home = home,
                     .token = token,
                     .experts = chosen},
                    placement, scenario.topology, ranks);
    return ranks;
  };
  Way way{.a_ranks = choose(0, home), .b_ranks = {}, .pivot = home};
  if (pivots) {
    const auto a = scenario.chosen(0, token);
    std::vector<float> gates;
    for (const std::int32_t expert : a) {
      gates.push_back(gate_value(token, std::max(0, int{expert})));
    }
    way.pivot = choose_pivot(
        Flow::pivot, kLayer, home, token,
        {.a = a,
         .gates = gates,
         .a_ranks = way.a_ranks,
         .b = scenario.options.pivot == PivotBy::speculative ? scenario.expected_of(token)
                                                             : std::span<const std::int32_t>()},
        placement, scenario.topology);
  }
  if (groups == 2) {
    way.b_ranks = choose(1, way.pivot);
  }
  return way;
}

}  // namespace cartesian::testing_ranks
