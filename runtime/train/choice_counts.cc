#include "runtime/train/choice_counts.h"

#include <algorithm>

#include "base/index.h"
#include "runtime/train/count_pairs.h"

namespace cartesian {

namespace {

// 1 MiB a report: with ten times as much, thousands of ranks would keep the coordinator busy.
constexpr std::size_t kMostPairs = std::size_t{1} << 18;

}  // namespace

ChoiceCounts::ChoiceCounts(const JobShape& shape)
    : groups_(as_index(shape.groups)),
      experts_(as_index(shape.experts)),
      pair_cells_(shape.groups == 2 && shape.co_activations() <= kMostPairs ? shape.co_activations()
                                                                            : 0),
      loads_(shape.loads()) {}

void ChoiceCounts::begin_step(bool pairs) {
  std::ranges::fill(loads_, 0.0F);
  pairs_.assign(pairs ? pair_cells_ : 0, 0.0F);
}

void ChoiceCounts::route(const RoutedChunk& chunk) {
  for (std::size_t group = 0; group < chunk.choices.size(); ++group) {
    float* loads = loads_.data() + (as_index(chunk.layer) * groups_ + group) * experts_;
    for (const std::int32_t expert : chunk.choices[group].experts.span<std::int32_t>()) {
      if (expert >= 0) {
        loads[expert] += 1;
      }
    }
  }
  if (!pairs_.empty()) {
    count_pairs(chunk, experts_, pairs_.data() + as_index(chunk.layer) * experts_ * experts_);
  }
}

}  // namespace cartesian
