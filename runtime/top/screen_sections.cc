#include "runtime/top/screen_sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "runtime/top/load_bars.h"
#include "runtime/train/progress.h"

namespace cartesian {

namespace {

constexpr std::size_t kNameWidth = 14;

// As in cluster/monitoring: its alerts, and the dashboards' colours below them.
struct Limits {
  double warning;
  double alarm;
};
constexpr Limits kStragglerRatio{1.15, 1.3};
constexpr Limits kRankImbalance{1.25, 1.5};
constexpr Limits kExposedShare{0.3, 0.5};
constexpr Limits kStepAge{60, 300};

TextStyle style_of(const std::optional<double>& value, const Limits& limits) {
  if (!value || *value < limits.warning) {
    return TextStyle::plain;
  }
  return *value < limits.alarm ? TextStyle::warning : TextStyle::alarm;
}

/// "-" for what is not known.
std::string fixed(const std::optional<double>& value, int digits) {
  return value ? fmt::format("{:.{}f}", *value, digits) : "-";
}

std::string percent(const std::optional<double>& share) {
  return share ? fmt::format("{:.1f}%", 100 * *share) : "-";
}

std::string bytes(double value) {
  constexpr std::array<std::string_view, 6> kUnits = {"B", "kB", "MB", "GB", "TB", "PB"};
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, unit == 0 || value >= 99.95 ? 0 : 1, kUnits.at(unit));
}

std::string whole(const std::optional<double>& value) { return fixed(value, 0); }

/// What shares and loads are over.
std::string span_of(const JobView& view) {
  return view.moving ? fmt::format("over {:.0f} s", view.window_s) : "since the job began";
}

StyledLine heading(std::string_view name, std::string_view rest = "") {
  StyledLine line(name, TextStyle::bold);
  return line.add(rest, TextStyle::dim);
}

/// Fields on as few lines as they need, each of which begins with `indent`.
ScreenLines flow(std::span<const StyledLine> fields, std::size_t width,
                 std::string_view indent = "") {
  constexpr std::string_view kBetween = "   ";
  ScreenLines lines;
  for (const StyledLine& field : fields) {
    if (lines.empty() || lines.back().width() + kBetween.size() + field.width() > width) {
      lines.push_back(StyledLine(indent).add(field));
    } else {
      lines.back().add(kBetween).add(field);
    }
  }
  return lines;
}

void append(ScreenLines& lines, ScreenLines more) {
  std::ranges::move(more, std::back_inserter(lines));
}

StyledLine ranks_field(const JobSnapshot& now) {
  StyledLine field;
  const auto of = [&](const char* health) {
    const auto found = now.ranks_by_health.find(health);
    return found == now.ranks_by_health.end() ? 0.0 : found->second;
  };
  const bool sound = !now.ranks || of("alive") + of("finished") >= *now.ranks;
  field.add(fmt::format("{:.0f} of {} ranks alive", of("alive"), whole(now.ranks)),
            sound ? TextStyle::plain : TextStyle::alarm);
  for (const auto& [health, count] : now.ranks_by_health) {
    if (health != "alive" && count > 0) {
      field.add(fmt::format(", {:.0f} {}", count, health),
                health == "finished" ? TextStyle::plain : TextStyle::alarm);
    }
  }
  return field.add(fmt::format(" on {} nodes", whole(now.nodes)));
}

/// Those that the job names.
ScreenLines straggler_lines(const JobSnapshot& now) {
  constexpr std::size_t kMost = 3;
  ScreenLines lines;
  for (const auto& [rank, slow] : now.slow_ranks) {
    lines.emplace_back(fmt::format("straggler: rank {} on {}, {:.2f} times as slow as others", rank,
                                   slow.host, slow.factor),
                       TextStyle::alarm);
  }
  for (const auto& [node, slow] : now.slow_links) {
    lines.emplace_back(
        fmt::format("straggler: the link of node {}, {}, {:.2f} times as slow as others", node,
                    slow.host, slow.factor),
        TextStyle::alarm);
  }
  if (lines.size() > kMost) {
    const std::size_t hidden = lines.size() - kMost + 1;
    lines.resize(kMost - 1);
    lines.emplace_back(fmt::format("… {} more stragglers", hidden), TextStyle::alarm);
  }
  return lines;
}

StyledLine step_field(const JobView& view, const ScreenContext& context) {
  const JobSnapshot& now = view.now;
  StyledLine field(fmt::format("step {}", whole(now.step)), TextStyle::bold);
  if (context.total_steps) {
    field.add(fmt::format(" of {}", whole(context.total_steps)));
    const double left = *context.total_steps - now.step.value_or(0);
    if (left > 0 && view.moving && view.steps_per_s.value_or(0) > 0) {
      field.add(fmt::format(", {} left", format_duration(left / *view.steps_per_s)));
    }
  }
  if (now.step_age_s) {
    field.add(fmt::format(", {} ago", format_duration(*now.step_age_s)),
              style_of(now.step_age_s, kStepAge));
  }
  return field;
}

/// Of a row of experts: its label, the cells of its loads, and figures.
struct ExpertColumns {
  static constexpr std::size_t kFigures = 32;

  std::size_t label = 6;
  std::size_t cells = 0;
  std::size_t most = 0;  ///< experts that the job tells the loads of

  ExpertColumns(const JobView& view, std::size_t width) {
    constexpr std::size_t kHeading = 48;
    for (const ExpertsView& experts : view.experts) {
      const std::size_t needed = fmt::format("  {} {} ", experts.layer, experts.group).size();
      label = std::clamp<std::size_t>(needed, label, 12);
      most = std::max(most, experts.loads.size());
    }
    if (width > label + kFigures) {
      cells = std::min(width - label - kFigures, std::max(most * kWidestCell, kHeading));
    }
  }
};

StyledLine experts_heading(const JobView& view, const ExpertColumns& columns) {
  const bool all = std::ranges::none_of(
      view.experts, [](const ExpertsView& experts) { return experts.loads.empty(); });
  std::string rest = columns.most > 0 ? fmt::format(", loads {}", span_of(view)) : ", mean/max";
  if (const std::size_t together = experts_per_cell(columns.most, columns.cells); together > 1) {
    rest += fmt::format(", {} a cell", together);
  }
  if (columns.most > 0 && !all) {
    rest += ", dim: mean/max";
  }
  StyledLine title = heading("Experts", rest);
  if (title.width() > columns.label + columns.cells) {
    title = heading("Experts");
  }
  return title.fit(columns.label + columns.cells)
      .add(fmt::format("{:>9}{:>6}{:>8}{:>9}", "max/mean", "dead", "ranks", "co-loc."),
           TextStyle::dim);
}

StyledLine experts_row(const ExpertsView& experts, const ExpertColumns& columns) {
  StyledLine line(fmt::format("  {} {}", experts.layer, experts.group));
  line.fit(columns.label);
  if (!experts.loads.empty()) {
    line.add(load_cells(experts.loads, columns.cells).fit(columns.cells));
  } else if (experts.imbalance.value_or(0) > 0) {
    line.add(share_bar(1 / *experts.imbalance, columns.cells, TextStyle::dim));
  }
  line.fit(columns.label + columns.cells);
  line.add(fmt::format("{:>9}", fixed(experts.imbalance, 2)));
  line.add(fmt::format("{:>6}", whole(experts.dead)),
           experts.dead.value_or(0) > 0 ? TextStyle::warning : TextStyle::plain);
  line.add(fmt::format("{:>8}", fixed(experts.rank_imbalance, 2)),
           style_of(experts.rank_imbalance, kRankImbalance));
  return line.add(fmt::format("{:>9}", percent(experts.colocation)));
}

/// Of the hosts' names: what the figures of ranks leave.
std::size_t host_columns(const JobView& view, std::size_t width) {
  constexpr std::size_t kOthers = 54;
  std::size_t longest = 0;
  for (const RankView& rank : view.ranks) {
    longest = std::max(longest, rank.host.size());
  }
  const std::size_t room = width > kOthers ? width - kOthers : 0;
  return std::clamp<std::size_t>(std::min(longest, room), 10, 40);
}

StyledLine ranks_row(const RankView& rank, std::size_t hosts) {
  StyledLine line(fmt::format("{:>6}  ", rank.rank));
  line.add(rank.host).fit(8 + hosts);
  line.add(fmt::format("{:>7}", fixed(rank.straggler_ratio, 2)),
           style_of(rank.straggler_ratio, kStragglerRatio));
  return line.add(fmt::format("{:>9}{:>10}{:>8}{:>12}", fixed(rank.step_s, 3),
                              percent(rank.compute_share), percent(rank.wait_share),
                              percent(rank.waited_for_share)));
}

/// Rows that are shown of `count` where there is room for `rows`.
std::size_t shown_rows(std::size_t count, std::size_t rows) {
  return count <= rows ? count : rows - std::min<std::size_t>(rows, 1);
}

}  // namespace

ScreenLines header_section(const JobView& view, const ScreenContext& context, std::size_t width) {
  const JobSnapshot& now = view.now;
  ScreenLines lines;
  StyledLine title("cartesian", TextStyle::bold);
  title.add(fmt::format(" {}   ", now.version)).add(context.title);
  lines.push_back(title);
  if (!context.trouble.empty()) {
    lines.emplace_back(context.trouble, TextStyle::alarm);
  }
  const std::vector<StyledLine> fields = {
      step_field(view, context),
      StyledLine(fmt::format("loss {}", fixed(now.loss, 4))),
      StyledLine(fmt::format("gradient norm {}", fixed(now.gradient_norm, 3))),
      StyledLine(now.learning_rate ? fmt::format("learning rate {:.3g}", *now.learning_rate)
                                   : "learning rate -"),
      StyledLine(
          fmt::format("{} tokens/s", view.tokens_per_s ? format_count(*view.tokens_per_s) : "-")),
      StyledLine(fmt::format("{} s a step", fixed(view.step_s, 3))),
      ranks_field(now),
      StyledLine(now.checkpoint_step.value_or(-1) < 0
                     ? "no checkpoint"
                     : fmt::format("checkpoint of step {}", whole(now.checkpoint_step))),
      StyledLine(fmt::format("plan {}", whole(now.plan_version)))};
  append(lines, flow(fields, width));
  append(lines, straggler_lines(now));
  if (!view.moving && view.window_s > 0) {
    lines.emplace_back(fmt::format("no step has ended in the last {:.1f} s", view.window_s),
                       TextStyle::dim);
  }
  return lines;
}

ScreenLines phases_section(const JobView& view, std::size_t width) {
  constexpr std::size_t kFigures = 17;
  const std::size_t bar = width > kNameWidth + 2 + kFigures ? width - kNameWidth - 2 - kFigures : 0;
  ScreenLines lines = {heading("Step", fmt::format(" by phase, {}", span_of(view)))};
  const auto row = [&](std::string_view name, double share, double seconds, TextStyle style) {
    StyledLine line("  ");
    line.add(name).fit(2 + kNameWidth).add(share_bar(share, bar, style));
    return line.add(fmt::format("{:>7}{:>8.3f} s", percent(share), seconds));
  };
  for (const PhaseView& phase : view.phases) {
    lines.push_back(row(phase.name, phase.share, phase.step_s, TextStyle::bar));
  }
  if (view.exposed_share && view.step_s) {
    const TextStyle style = style_of(view.exposed_share, kExposedShare);
    lines.push_back(row("exposed waits", *view.exposed_share, *view.exposed_share * *view.step_s,
                        style == TextStyle::plain ? TextStyle::dim : style));
  }
  return lines;
}

ScreenLines traffic_section(const JobView& view, std::size_t width) {
  ScreenLines lines = {heading("Traffic", fmt::format("{:>19}{:>9}", "bytes/s", "rows/s"))};
  for (const TrafficView& traffic : view.traffic) {
    const std::string name = traffic.scope == "intra"   ? "inside nodes"
                             : traffic.scope == "inter" ? "between nodes"
                                                        : traffic.scope;
    StyledLine line("  ");
    line.add(name).fit(2 + kNameWidth);
    lines.push_back(
        line.add(fmt::format("{:>10}{:>9}", traffic.bytes_per_s ? bytes(*traffic.bytes_per_s) : "-",
                             traffic.rows_per_s ? format_count(*traffic.rows_per_s) : "-")));
  }
  const JobSnapshot& now = view.now;
  const std::vector<StyledLine> fields = {
      StyledLine(fmt::format("copies a token {}", fixed(now.copies_per_token, 2))),
      StyledLine(fmt::format("dedup {}", fixed(now.dedup_factor, 2))),
      StyledLine(fmt::format("pivot hits {}", percent(view.pivot_hit_rate)))};
  append(lines, flow(fields, width, "  "));
  return lines;
}

ScreenLines plan_section(const JobView& view, std::size_t width) {
  const JobSnapshot& now = view.now;
  ScreenLines lines = {heading("Plan", fmt::format(" {}", whole(now.plan_version)))};
  std::vector<StyledLine> fields;
  for (const auto& [outcome, count] : now.plans) {
    fields.emplace_back(fmt::format("{} {:.0f}", outcome, count),
                        outcome == "failed" && count > 0 ? TextStyle::alarm : TextStyle::plain);
  }
  fields.emplace_back(fmt::format("moved {}", bytes(now.migrated_bytes)));
  append(lines, flow(fields, width, "  "));
  if (now.placement) {
    const PlacementSummary& placement = *now.placement;
    const std::int64_t experts = placement.layers * placement.groups * placement.experts;
    lines.emplace_back(fmt::format("  {} experts in {} replicas", experts, placement.replicas));
  }
  return lines;
}

ScreenLines experts_section(const JobView& view, std::size_t width, std::size_t rows) {
  if (view.experts.empty()) {
    return {};
  }
  const ExpertColumns columns(view, width);
  ScreenLines lines = {experts_heading(view, columns)};
  const std::size_t shown = shown_rows(view.experts.size(), rows);
  for (std::size_t i = 0; i < shown; ++i) {
    lines.push_back(experts_row(view.experts[i], columns));
  }
  const auto hidden = std::span(view.experts).subspan(shown);
  if (!hidden.empty() && rows > 0) {
    const auto worst = std::ranges::max_element(
        hidden, {}, [](const ExpertsView& experts) { return experts.imbalance.value_or(0); });
    lines.emplace_back(
        fmt::format("  … {} more rows; the least even, {} {}, has max/mean {}", hidden.size(),
                    worst->layer, worst->group, fixed(worst->imbalance, 2)),
        TextStyle::dim);
  }
  return lines;
}

ScreenLines ranks_section(const JobView& view, std::size_t width, std::size_t rows) {
  if (view.ranks.empty()) {
    return {};
  }
  const std::size_t hosts = host_columns(view, width);
  StyledLine title = heading("Ranks", ", slowest");
  title.fit(8 + hosts).add(fmt::format("{:>7}{:>9}{:>10}{:>8}{:>12}", "ratio", "step s", "computes",
                                       "waits", "waited for"),
                           TextStyle::dim);
  ScreenLines lines = {title};
  const std::size_t shown = shown_rows(view.ranks.size(), rows);
  for (std::size_t i = 0; i < shown; ++i) {
    lines.push_back(ranks_row(view.ranks[i], hosts));
  }
  const auto hidden = std::span(view.ranks).subspan(shown);
  if (!hidden.empty() && rows > 0) {
    lines.emplace_back(fmt::format("  … {} more ranks, with ratios {} to {}", hidden.size(),
                                   fixed(hidden.back().straggler_ratio, 2),
                                   fixed(hidden.front().straggler_ratio, 2)),
                       TextStyle::dim);
  }
  return lines;
}

}  // namespace cartesian
