#include "planner/co_activation.h"

#include <algorithm>
#include <numeric>

namespace cartesian {

std::vector<std::int64_t> expert_loads(const LayerTrace& layer) {
  // Several counters take turns, so that an expert chosen again soon does not wait for itself.
  constexpr std::size_t kTurns = 4;
  const std::size_t stride = as_index(layer.experts) + 1;  // the first of each: no expert
  std::vector<std::int64_t> loads;
  std::vector<std::int32_t> counts(kTurns * stride);
  for (const LayerTrace::Group& group : layer.groups) {
    std::ranges::fill(counts, 0);
    const std::int16_t* ids = group.ids.data();
    const std::size_t turns = group.ids.size() / kTurns * kTurns;
    for (std::size_t i = 0; i < turns; i += kTurns) {
      for (std::size_t turn = 0; turn < kTurns; ++turn) {
        ++counts[turn * stride + as_index(ids[i + turn] + 1)];
      }
    }
    for (std::size_t i = turns; i < group.ids.size(); ++i) {
      ++counts[as_index(ids[i] + 1)];
    }
    for (std::size_t expert = 1; expert < stride; ++expert) {
      std::int64_t load = 0;
      for (std::size_t turn = 0; turn < kTurns; ++turn) {
        load += counts[turn * stride + expert];
      }
      loads.push_back(load);
    }
  }
  return loads;
}

CoActivation::CoActivation(const LayerTrace& layer)
    : experts_of_group_(layer.experts), tokens_(layer.tokens), loads_(expert_loads(layer)) {
  const std::size_t count = loads_.size();
  together_.resize(count * count);
  std::vector<int> chosen;
  for (std::int64_t token = 0; token < layer.tokens; ++token) {
    chosen.clear();
    int groups = 0;
    for (std::size_t group = 0; group < layer.groups.size(); ++group) {
      const std::size_t before = chosen.size();
      for (const std::int16_t id : layer.groups[group].of(token)) {
        if (id >= 0) {
          chosen.push_back(static_cast<int>(group) * layer.experts + id);
        }
      }
      groups += chosen.size() > before ? 1 : 0;
    }
    choosing_ += groups;
    choosing_both_ += groups == 2 ? 1 : 0;
    choices_alone_ += groups == 1 ? static_cast<std::int64_t>(chosen.size()) : 0;
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      std::int32_t* row = together_.data() + as_index(chosen[i]) * count;
      for (std::size_t j = i; j < chosen.size(); ++j) {
        ++row[chosen[j]];
      }
    }
  }
  for (std::size_t a = 0; a < count; ++a) {  // each pair was counted in either order
    for (std::size_t b = 0; b < a; ++b) {
      const std::int32_t both = together_[a * count + b] + together_[b * count + a];
      together_[a * count + b] = both;
      together_[b * count + a] = both;
    }
  }
}

double CoActivation::choices() const {
  const auto all = static_cast<double>(std::reduce(loads_.begin(), loads_.end()));
  return choosing_ > 0 ? all / static_cast<double>(choosing_) : 0;
}

}  // namespace cartesian
