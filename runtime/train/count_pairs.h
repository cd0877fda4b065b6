#pragma once
// Which experts of A and of B the same tokens chose.

#include "base/index.h"
#include "runtime/model/rank_context.h"

namespace cartesian {

/// Adds one to pairs[a * experts + b] for each of A's and each of B's choices of every token of
/// `chunk`. `pairs`: of its layer. REQUIRES: two sub-layers.
template <class Number>
void count_pairs(const RoutedChunk& chunk, std::size_t experts, Number* pairs) {
  const Tensor& a = chunk.choices[0].experts;
  const Tensor& b = chunk.choices[1].experts;
  const auto all_a = a.span<std::int32_t>();
  const auto all_b = b.span<std::int32_t>();
  const auto a_cols = as_index(a.cols());
  const auto b_cols = as_index(b.cols());
  for (std::size_t row = 0; row < as_index(a.rows()); ++row) {
    for (const std::int32_t expert_a : all_a.subspan(row * a_cols, a_cols)) {
      if (expert_a < 0) {
        break;  // no further choice
      }
      Number* of_a = pairs + as_index(expert_a) * experts;
      for (const std::int32_t expert_b : all_b.subspan(row * b_cols, b_cols)) {
        if (expert_b >= 0) {
          of_a[expert_b] += 1;
        }
      }
    }
  }
}

}  // namespace cartesian
