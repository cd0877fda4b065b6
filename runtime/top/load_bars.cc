#include "runtime/top/load_bars.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string_view>

namespace cartesian {

StyledLine share_bar(double share, std::size_t width, TextStyle style) {
  constexpr std::array<std::string_view, 8> kParts = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const double columns = (share > 0 ? std::min(share, 1.0) : 0.0) * static_cast<double>(width);
  const auto eighths = static_cast<std::size_t>(std::lround(columns * 8));
  StyledLine line;
  for (std::size_t i = 0; i < eighths / 8; ++i) {
    line.add("█", style);
  }
  line.add(kParts.at(eighths % 8), style);
  return line.fit(width);
}

std::size_t experts_per_cell(std::size_t experts, std::size_t width) {
  return width == 0 ? experts : (experts + width - 1) / width;
}

StyledLine load_cells(std::span<const double> loads, std::size_t width) {
  constexpr std::array<std::string_view, 9> kLevels = {"·", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  StyledLine line;
  if (loads.empty() || width == 0) {
    return line;
  }
  const double highest = *std::ranges::max_element(loads);
  const double mean =
      std::accumulate(loads.begin(), loads.end(), 0.0) / static_cast<double>(loads.size());
  const std::size_t together = experts_per_cell(loads.size(), width);
  const std::size_t columns = std::clamp<std::size_t>(width / loads.size(), 1, kWidestCell);
  for (std::size_t i = 0; i < loads.size(); i += together) {
    const auto cell = loads.subspan(i, std::min(together, loads.size() - i));
    const double load = *std::ranges::max_element(cell);
    const double level = load > 0 ? std::max(1.0, std::round(load / highest * 8)) : 0;
    const TextStyle style = load > 2 * mean     ? TextStyle::alarm
                            : load > 1.5 * mean ? TextStyle::warning
                                                : TextStyle::bar;
    for (std::size_t column = 0; column < columns; ++column) {
      line.add(kLevels.at(static_cast<std::size_t>(std::clamp(level, 0.0, 8.0))), style);
    }
  }
  return line;
}

}  // namespace cartesian
