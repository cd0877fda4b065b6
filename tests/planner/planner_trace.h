#pragma once
// Small traces for the planner's tests.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/random.h"
#include "base/routing_trace.h"

namespace cartesian::test {

struct TraceSpec {
  int layers = 1;
  int groups = 2;
  int experts = 8;
  int choices = 2;
  std::int64_t tokens = 200;
  /// Experts e and f are chosen together more often if e / cluster == f / cluster; 0: all alike.
  int cluster = 0;
  double skew = 0;        ///< how much likelier the first experts are
  bool ragged = false;    ///< some tokens make fewer choices, as with top-p
  double prediction = 1;  ///< share of speculative choices that are right
};

/// The same for a seed on any machine.
inline RoutingTrace make_trace(const TraceSpec& spec, std::uint64_t seed) {
  RoutingTrace trace;
  trace.tokens = spec.tokens;
  trace.experts = spec.experts;
  trace.hidden = 64;
  trace.expert_width = 128;
  std::uint64_t next = 0;
  const std::uint64_t key = random_key(seed, "planner trace");
  const auto uniform = [&] { return random_uniform(key, next++); };
  const int clusters = spec.cluster > 0 ? spec.experts / spec.cluster : 1;
  std::vector<int> topic(static_cast<std::size_t>(spec.tokens));
  for (int layer = 0; layer < spec.layers; ++layer) {
    for (int& cluster : topic) {
      cluster = static_cast<int>(uniform() * clusters);
    }
    for (int group = 0; group < spec.groups; ++group) {
      RoutingTrace::SubLayer sub_layer{.block = layer,
                                       .group = group,
                                       .choices = spec.choices,
                                       .ids = {},
                                       .gates = {},
                                       .speculative_ids = {}};
      for (std::int64_t token = 0; token < spec.tokens; ++token) {
        const int count =
            spec.ragged ? 1 + static_cast<int>(uniform() * spec.choices) : spec.choices;
        std::vector<std::int16_t> chosen;
        while (static_cast<int>(chosen.size()) < count) {
          const double u = uniform();
          int expert = static_cast<int>(spec.experts * (u + spec.skew * (u * u - u)));
          // Most choices stay in the token's cluster; which experts it has is scrambled.
          if (spec.cluster > 0 && uniform() < 0.8) {
            expert = topic[static_cast<std::size_t>(token)] + clusters * (expert % spec.cluster);
          }
          const auto id = static_cast<std::int16_t>(expert);
          if (std::find(chosen.begin(), chosen.end(), id) == chosen.end()) {
            chosen.push_back(id);
          }
        }
        for (int i = 0; i < spec.choices; ++i) {
          const bool real = i < count;
          sub_layer.ids.push_back(real ? chosen[static_cast<std::size_t>(i)] : std::int16_t{-1});
          sub_layer.gates.push_back(real ? 1.0F / static_cast<float>(i + 1) : 0);
          if (group == 1) {
            const bool right = uniform() < spec.prediction;
            sub_layer.speculative_ids.push_back(
                right || !real ? sub_layer.ids.back()
                               : static_cast<std::int16_t>(uniform() * spec.experts));
          }
        }
      }
      trace.sub_layers.push_back(std::move(sub_layer));
    }
  }
  return trace;
}

}  // namespace cartesian::test
