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
  for (const LayerTrace::Group& group : layer.groups) {
    auto& ids = ids_.emplace_back();
    ids.reserve(as_index(layer_.tokens * group.choices));
    for (std::int64_t i = 0; i < layer_.tokens; ++i) {
      const auto chosen = group.of(i * layer.tokens / layer_.tokens);
      ids.insert(ids.end(), chosen.begin(), chosen.end());
    }
  }
  for (std::size_t group = 0; group < ids_.size(); ++group) {
    layer_.groups.push_back({layer.groups[group].choices, ids_[group], {}});
  }
}

}  // namespace cartesian
