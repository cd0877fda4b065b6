#pragma once
// Rows of rails: those of the sources, then those of the rails behind them (comm/exchange_plan.h).
// Internal to the sub-layer.

#include <array>
#include <vector>

#include "base/tensor.h"
#include "kernels/rows.h"

namespace cartesian {

/// Row bounds of one group, for ops over groups.
inline std::array<std::int64_t, 2> one_group(std::int64_t rows) { return {0, rows}; }

inline std::size_t row_bytes(const Tensor& rows) {
  return static_cast<std::size_t>(rows.cols()) * size_of(rows.dtype());
}

/// Of all rails.
inline std::vector<const std::byte*> rail_rows(const Tensor& sources, const Tensor& behind) {
  std::vector<const std::byte*> rows = row_sources(sources);
  const std::vector<const std::byte*> more = row_sources(behind);
  rows.insert(rows.end(), more.begin(), more.end());
  return rows;
}

/// to[i] = *rows[chosen[i]].
inline void gather_rows(const Context& context, RowSources rows,
                        std::span<const std::int32_t> chosen, const Tensor& to) {
  std::vector<const std::byte*> from;
  for (const std::int32_t row : chosen) {
    from.push_back(rows[static_cast<std::size_t>(row)]);
  }
  copy_rows(context, from, row_targets(to), row_bytes(to));
}

}  // namespace cartesian
