#include "runtime/train/choice_counts.h"

#include <algorithm>

#include "base/index.h"

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
    count_pairs(chunk);
  }
}

void ChoiceCounts::count_pairs(const RoutedChunk& chunk) {
  const Tensor& a = chunk.choices[0].experts;
  const Tensor& b = chunk.choices[1].experts;
  const auto all_a = a.span<std::int32_t>();
  const auto all_b = b.span<std::int32_t>();
  const auto a_cols = as_index(a.cols());
  const auto b_cols = as_index(b.cols());
  float* layer = pairs_.data() + as_index(chunk.layer) * experts_ * experts_;
  for (std::size_t row = 0; row < as_index(a.rows()); ++row) {
    for (const std::int32_t expert_a : all_a.subspan(row * a_cols, a_cols)) {
      if (expert_a < 0) {
        continue;
      }
      float* pairs = layer + as_index(expert_a) * experts_;
      for (const std::int32_t expert_b : all_b.subspan(row * b_cols, b_cols)) {
        if (expert_b >= 0) {
          pairs[expert_b] += 1;
        }
      }
    }
  }
}

}  // namespace cartesian
