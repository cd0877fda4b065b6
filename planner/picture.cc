#include "planner/picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/html.h"
#include "base/index.h"
#include "planner/layer_trace.h"

namespace cartesian {

namespace {

constexpr std::size_t kMostLayers = 12;
constexpr int kMostCells = 64;  // of a side of a matrix
constexpr int kCell = 9;
constexpr int kBand = 6;  // the strip that tells nodes apart
constexpr int kNodeColors = 8;
// What a page may have in all, a layer in the names of its experts, and nodes that it shows: a
// layer that has all of it is a third of a page.
constexpr std::size_t kMostBytes = 4000000;
constexpr std::size_t kMostNameBytes = 600000;
constexpr int kMostNodes = 1024;

constexpr const char* kHead = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{}</title><style>
:root {{ color-scheme: light dark; --page: #f7f7f5; --card: #fff; --ink: #1a1e24; --muted: #5b6472; --line: #e2e4e8; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #0f1216; --card: #171b21; --ink: #e7eaee; --muted: #98a3b2; --line: #2a313b; }} }}
body {{ margin: 0 auto; max-width: 1240px; padding: 24px 20px 40px; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }}
h1 {{ font-size: 24px; overflow-wrap: anywhere; }} h2 {{ font-size: 17px; margin: 0 0 8px; }} p {{ color: var(--muted); font-size: 13px; }}
section {{ background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px; margin-top: 16px; display: grid; gap: 16px 28px; grid-template-columns: minmax(0, auto) minmax(0, 1fr); }}
section h2 {{ grid-column: 1 / -1; }} svg {{ max-width: 100%; height: auto; }} text {{ fill: var(--muted); font-size: 11px; }}
table {{ border-collapse: collapse; font-size: 12px; align-self: start; }} th, td {{ text-align: left; vertical-align: top; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); }}
th {{ white-space: nowrap; font-weight: 600; }} .swatch {{ display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }} td {{ overflow-wrap: anywhere; }}
@media (max-width: 760px) {{ section {{ grid-template-columns: minmax(0, 1fr); }} }}
</style></head><body><h1>{}</h1>
<p>Rows are experts of A, columns of B, both in the order of their nodes, which the strips show. Blue: tokens choose the pair less often than if choices were independent; orange: more often. Boxes are nodes: pairs inside need no copy between A and B. An expert with several replicas stands at its first.</p>
)";

const char* node_color(int node) {
  constexpr std::array<const char*, kNodeColors> kColors = {
      "#2463c5", "#d56a06", "#128066", "#9348b5", "#c42f4d", "#0f8aa6", "#87652f", "#5b6675"};
  return kColors.at(as_index(node % kNodeColors));
}

/// Of how many times chance, from blue by white to orange.
std::string cell_color(double times) {
  const double log = times > 0 ? std::clamp(std::log2(times) / 3, -1.0, 1.0) : -1;
  const std::array<int, 3> end =
      log < 0 ? std::array<int, 3>{23, 74, 158} : std::array<int, 3>{176, 65, 11};
  constexpr std::array<int, 3> kEven = {244, 242, 236};
  std::array<int, 3> mixed{};
  for (std::size_t i = 0; i < 3; ++i) {
    mixed.at(i) =
        static_cast<int>(std::lround(kEven.at(i) + std::abs(log) * (end.at(i) - kEven.at(i))));
  }
  return fmt::format("#{:02x}{:02x}{:02x}", mixed[0], mixed[1], mixed[2]);
}

/// One layer's experts, group by group in the order of the nodes of their first replicas.
class LayerPicture {
 public:
  LayerPicture(const LayerTrace& layer, int index, const Placement& placement,
               const Topology& topology)
      : layer_(layer), index_(index), placement_(placement), topology_(topology) {
    for (std::size_t group = 0; group < layer.groups.size(); ++group) {
      auto& loads = loads_.emplace_back(as_index(layer.experts));
      for (const std::int16_t id : layer.groups[group].ids) {
        if (id >= 0) {
          ++loads[as_index(id)];
        }
      }
      auto& order = order_.emplace_back(as_index(layer.experts));
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, {}, [&](int expert) {
        return std::pair(first_node(static_cast<int>(group), expert), -loads[as_index(expert)]);
      });
    }
  }

  std::string html() const {
    return fmt::format("<section><h2>Block {}</h2><div>{}</div>{}</section>\n", layer_.block,
                       layer_.groups.size() == 2 ? matrix() : "", nodes());
  }

 private:
  int first_node(int group, int expert) const {
    return topology_.node(placement_.replicas(index_, group, expert)[0]);
  }

  /// How often pairs are chosen, over chance: [cells][cells].
  std::vector<double> times_chance(int cells) const {
    std::vector<int> cell_of[2];
    std::vector<double> load[2];
    for (std::size_t group = 0; group < 2; ++group) {
      cell_of[group].resize(as_index(layer_.experts));
      load[group].resize(as_index(cells));
      for (int place = 0; place < layer_.experts; ++place) {
        const int expert = order_[group][as_index(place)];
        const int cell = place * cells / layer_.experts;
        cell_of[group][as_index(expert)] = cell;
        load[group][as_index(cell)] += static_cast<double>(loads_[group][as_index(expert)]);
      }
    }
    std::vector<double> pairs(as_index(cells) * as_index(cells));
    double all = 0;
    for (std::int64_t token = 0; token < layer_.tokens; ++token) {
      for (const std::int16_t a : layer_.groups[0].of(token)) {
        for (const std::int16_t b : layer_.groups[1].of(token)) {
          if (a >= 0 && b >= 0) {
            ++pairs[as_index(cell_of[0][as_index(a)]) * as_index(cells) +
                    as_index(cell_of[1][as_index(b)])];
            ++all;
          }
        }
      }
    }
    const double total_a = std::reduce(load[0].begin(), load[0].end());
    const double total_b = std::reduce(load[1].begin(), load[1].end());
    for (int a = 0; a < cells; ++a) {
      for (int b = 0; b < cells; ++b) {
        const double chance =
            load[0][as_index(a)] * load[1][as_index(b)] * all / std::max(1.0, total_a * total_b);
        double& pair = pairs[as_index(a) * as_index(cells) + as_index(b)];
        pair = chance > 0 ? pair / chance : 1;
      }
    }
    return pairs;
  }

  std::string matrix() const {
    const int cells = std::min(layer_.experts, kMostCells);
    const std::vector<double> times = times_chance(cells);
    const int side = cells * kCell;
    std::string svg = fmt::format(
        "<svg role=\"img\" aria-label=\"Co-activation of A and B in block {}\" width=\"{}\" "
        "height=\"{}\" viewBox=\"0 0 {} {}\" shape-rendering=\"crispEdges\">",
        layer_.block, side + kBand + 2, side + kBand + 2, side + kBand + 2, side + kBand + 2);
    for (int a = 0; a < cells; ++a) {
      for (int b = 0; b < cells; ++b) {
        svg += fmt::format("<path d=\"M{} {}h{}v{}h-{}z\" fill=\"{}\"/>", kBand + 2 + b * kCell,
                           kBand + 2 + a * kCell, kCell, kCell, kCell,
                           cell_color(times[as_index(a) * as_index(cells) + as_index(b)]));
      }
    }
    for (int node = 0; node < shown_nodes(); ++node) {
      svg += marks(node, static_cast<double>(side) / layer_.experts);
    }
    return svg + "</svg>";
  }

  /// A node's part of the strips, and its box.
  std::string marks(int node, double scale) const {
    const auto [a, a_end] = range(0, node);
    const auto [b, b_end] = range(1, node);
    const auto place = [&](int expert) { return kBand + 2 + scale * expert; };
    const char* color = node_color(node);
    std::string svg;
    if (a < a_end) {
      svg += fmt::format("<rect x=\"0\" y=\"{:.1f}\" width=\"{}\" height=\"{:.1f}\" fill=\"{}\"/>",
                         place(a), kBand, scale * (a_end - a), color);
    }
    if (b < b_end) {
      svg += fmt::format("<rect x=\"{:.1f}\" y=\"0\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\"/>",
                         place(b), scale * (b_end - b), kBand, color);
    }
    if (a < a_end && b < b_end) {
      svg += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"none\" "
          "stroke=\"{}\" stroke-width=\"2\"/>",
          place(b), place(a), scale * (b_end - b), scale * (a_end - a), color);
    }
    return svg;
  }

  int shown_nodes() const { return std::min(topology_.nodes(), kMostNodes); }

  /// Places, in the order of a group, of the experts whose first node is this one.
  std::pair<int, int> range(std::size_t group, int node) const {
    const auto before = [&](int least) {
      return static_cast<int>(std::ranges::count_if(order_[group], [&](int expert) {
        return first_node(static_cast<int>(group), expert) < least;
      }));
    };
    return {before(node), before(node + 1)};
  }

  std::string nodes() const {
    std::string rows;
    std::size_t left = kMostNameBytes;
    for (int node = 0; node < shown_nodes(); ++node) {
      rows +=
          fmt::format("<tr><th><span class=\"swatch\" style=\"background:{}\"></span>node {}</th>",
                      node_color(node), node);
      for (int group = 0; group < static_cast<int>(layer_.groups.size()); ++group) {
        const std::string names = members(group, node, left);
        left -= std::min(left, names.size());
        rows += "<td>" + names + "</td>";
      }
      rows += "</tr>";
    }
    if (shown_nodes() < topology_.nodes()) {
      rows += fmt::format("<tr><th>and {} nodes more</th></tr>", topology_.nodes() - shown_nodes());
    }
    return fmt::format("<table><tr><th></th><th>A</th>{}</tr>{}</table>",
                       layer_.groups.size() == 2 ? "<th>B</th>" : "", rows);
  }

  /// As many as fit `most` bytes.
  std::string members(int group, int node, std::size_t most) const {
    std::string names;
    for (const int expert : order_[as_index(group)]) {
      const auto ranks = placement_.replicas(index_, group, expert);
      if (std::ranges::any_of(ranks, [&](int rank) { return topology_.node(rank) == node; })) {
        const std::string name =
            fmt::format("{}{}{}", names.empty() ? "" : " ", expert, ranks.size() > 1 ? "*" : "");
        if (names.size() + name.size() > most) {
          return names + " …";
        }
        names += name;
      }
    }
    return names;
  }

  const LayerTrace& layer_;
  int index_;
  const Placement& placement_;
  const Topology& topology_;
  std::vector<std::vector<std::int64_t>> loads_;  // [groups][experts]
  std::vector<std::vector<int>> order_;           // [groups][experts]
};

/// The least, so that every step-th section, from the first on, has at most `room` bytes.
std::size_t step_that_fits(const std::vector<std::string>& sections, std::size_t room) {
  std::size_t step = 1;
  for (; step < sections.size(); ++step) {
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < sections.size(); i += step) {
      bytes += sections[i].size();
    }
    if (bytes <= room) {
      break;
    }
  }
  return step;
}

}  // namespace

std::string make_picture(const RoutingTrace& trace, const Placement& placement,
                         const Topology& topology, const std::string& title) {
  const std::vector<LayerTrace> layers = layers_of(trace);
  check(placement.shape() == placement_shape(trace, topology.ranks()),
        "the placement is of this trace and topology");
  const std::string name = html_escaped(title);
  std::string page = fmt::format(kHead, name, name);
  constexpr std::string_view kEnd =
      "<p>An asterisk: the expert has replicas on several ranks.</p></body></html>\n";
  const std::size_t stride =
      std::max<std::size_t>(1, (layers.size() + kMostLayers - 1) / kMostLayers);
  std::vector<std::string> sections;
  for (std::size_t i = 0; i < layers.size(); i += stride) {
    sections.push_back(LayerPicture(layers[i], static_cast<int>(i), placement, topology).html());
  }
  const std::size_t step = step_that_fits(sections, kMostBytes - page.size() - kEnd.size());
  for (std::size_t i = 0; i < sections.size(); i += step) {
    page += sections[i];
  }
  return page.append(kEnd);
}

}  // namespace cartesian
