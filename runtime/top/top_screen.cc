#include "runtime/top/top_screen.h"

#include <fmt/format.h>

#include <algorithm>

namespace cartesian {

namespace {

constexpr std::size_t kWide = 80;
constexpr std::size_t kGap = 3;

void append(ScreenLines& lines, const ScreenLines& more) {
  lines.insert(lines.end(), more.begin(), more.end());
}

/// With an empty line between, if there is something on both sides.
void append_section(ScreenLines& lines, const ScreenLines& section) {
  if (!lines.empty() && !section.empty()) {
    lines.emplace_back();
  }
  append(lines, section);
}

ScreenLines beside(const ScreenLines& left, const ScreenLines& right, std::size_t left_width) {
  ScreenLines lines;
  for (std::size_t i = 0; i < std::max(left.size(), right.size()); ++i) {
    StyledLine line = i < left.size() ? left[i] : StyledLine();
    line.fit(left_width + kGap);
    if (i < right.size()) {
      line.add(right[i]);
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

/// Phases, traffic and the plan.
ScreenLines middle(const JobView& view, std::size_t width) {
  const bool wide = width >= kWide;
  const std::size_t left = wide ? width / 2 : width;
  const std::size_t right = wide ? width - left - kGap : width;
  ScreenLines phases = phases_section(view, left);
  ScreenLines others = traffic_section(view, right);
  append_section(others, plan_section(view, right));
  if (wide) {
    return beside(phases, others, left);
  }
  append_section(phases, others);
  return phases;
}

/// Experts and ranks on at most `height` lines.
ScreenLines tables(const JobView& view, std::size_t width, std::size_t height) {
  constexpr std::size_t kFixed = 4;  // headings, and an empty line before each
  const std::size_t experts = view.experts.size();
  const std::size_t ranks = view.ranks.size();
  const std::size_t room = height > kFixed ? height - kFixed : 0;
  std::size_t rank_rows = ranks;
  if (experts + ranks > room) {
    rank_rows = std::min(ranks, std::max(room / 3, room - std::min(room, experts)));
  }
  ScreenLines lines =
      experts_section(view, width, std::min(experts, room - std::min(room, rank_rows)));
  append_section(lines, ranks_section(view, width, rank_rows));
  return lines;
}

}  // namespace

std::vector<std::string> top_screen(const JobView& view, const ScreenContext& context,
                                    const ScreenSize& size, bool colour) {
  ScreenLines lines = header_section(view, context, size.width);
  append_section(lines, middle(view, size.width));
  const std::size_t used = lines.size();
  const std::size_t rest = size.height == 0 ? kAllRows : size.height - std::min(size.height, used);
  append_section(lines, tables(view, size.width, rest));
  if (size.height > 0 && lines.size() > size.height) {
    const std::size_t hidden = lines.size() - size.height + 1;
    lines.resize(size.height - 1);
    lines.emplace_back(fmt::format("… {} more lines", hidden), TextStyle::dim);
  }
  std::vector<std::string> texts;
  texts.reserve(lines.size());
  for (StyledLine& line : lines) {
    texts.push_back(line.cut(size.width).text(colour));
  }
  return texts;
}

}  // namespace cartesian
