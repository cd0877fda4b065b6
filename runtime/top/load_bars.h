#pragma once
// load_bars: numbers as bars of block elements.

#include <cstddef>
#include <span>

#include "runtime/top/styled_line.h"

namespace cartesian {

/// A bar from the left, `share` (0 to 1) of `width` columns, in eighths of one; then blanks.
StyledLine share_bar(double share, std::size_t width, TextStyle style = TextStyle::bar);

/// Columns that an expert has at most.
inline constexpr std::size_t kWidestCell = 4;

/// How many experts each cell of load_cells() stands for.
std::size_t experts_per_cell(std::size_t experts, std::size_t width);

/// Cells from ▁ to █, one for each load, as high as it is against the highest; · is no load. Where
/// they are more than `width`, a cell shows the highest of experts_per_cell() loads; where they
/// are few, each has up to kWidestCell columns. Above 1.5 times the mean load a cell warns, above
/// twice it alarms.
StyledLine load_cells(std::span<const double> loads, std::size_t width);

}  // namespace cartesian
