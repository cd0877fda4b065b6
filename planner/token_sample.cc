#include "planner/token_sample.h"

#include <algorithm>

#include "base/index.h"

namespace cartesian {

TokenSample::TokenSample(const LayerTrace& layer, std::int64_t count)
    : layer_{.block = layer.block,
             .tokens = std::min(count, layer.tokens),
             .experts = layer.experts,
             .groups = {},
             .speculative = {},
             .home = {}} {
  /// Of every token of the sample its `width` values.
  const auto pick = [&](const auto& from, std::int64_t width, auto& to) {
    to.reserve(as_index(layer_.tokens * width));
    for (std::int64_t i = 0; i < layer_.tokens && !from.empty(); ++i) {
      const auto values =
          from.subspan(as_index(i * layer.tokens / layer_.tokens * width), as_index(width));
      to.insert(to.end(), values.begin(), values.end());
    }
  };
  for (const LayerTrace::Group& group : layer.groups) {
    pick(group.ids, group.choices, ids_.emplace_back());
    pick(group.gates, group.choices, gates_.emplace_back());
  }
  pick(layer.speculative, layer.groups.back().choices, speculative_);
  pick(layer.home, 1, home_);
  for (std::size_t group = 0; group < ids_.size(); ++group) {
    layer_.groups.push_back({layer.groups[group].choices, ids_[group], gates_[group]});
  }
  layer_.speculative = speculative_;
  layer_.home = home_;
}

}  // namespace cartesian
