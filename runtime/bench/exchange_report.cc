#include "runtime/bench/exchange_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "base/index.h"
#include "runtime/bench/group_meter.h"
#include "runtime/version.h"

namespace cartesian {

namespace {

using nlohmann::ordered_json;

constexpr double kMilli = 1e3;
constexpr double kGiga = 1e9;
constexpr double kMiB = 1024.0 * 1024.0;

struct PhaseRow {
  BenchPhase phase;
  const char* label;
  const char* key;
  int a = 0;  ///< how often A's rows move
  int b = 0;
};

/// Those of a case: without B's where there is none.
std::vector<PhaseRow> rows_of(const ExchangeCase& measured) {
  std::vector<PhaseRow> rows = {{BenchPhase::dispatch_a, "A dispatch", "dispatch_a", 1, 0},
                                {BenchPhase::collect_a, "A collect", "collect_a", 1, 0}};
  if (measured.groups() == 2) {
    rows.push_back({BenchPhase::dispatch_b, "B dispatch", "dispatch_b", 0, 1});
    rows.push_back({BenchPhase::collect_b, "B return", "return_b", 0, 1});
  }
  rows.push_back({BenchPhase::experts, "experts", "experts", 0, 0});
  rows.push_back({BenchPhase::forward, "forward", "forward", 2, 2});
  rows.push_back({BenchPhase::backward, "backward", "backward", 2, 2});
  rows.push_back({BenchPhase::step, "both", "step", 4, 4});
  return rows;
}

/// Bytes that a part of the step must bring to a rank, in the mean.
double bytes_needed(const ExchangeCase& measured, const PhaseRow& row) {
  const auto [a, b] = rows_needed(measured);
  return static_cast<double>(row.a * a + row.b * b) * static_cast<double>(measured.hidden) *
         static_cast<double>(size_of(measured.dtype)) / measured.topology.ranks();
}

std::string node_sizes(const Topology& topology) {
  std::string text;
  for (int node = 0; node < topology.nodes(); ++node) {
    text += fmt::format("{}{}", node == 0 ? "" : " + ", topology.ranks_of_node(node).size());
  }
  return text;
}

void print_header(const ExchangeCase& measured, const ExchangeReport& report) {
  const Topology& topology = measured.topology;
  fmt::print("{} rank{} ({}) over {}, {} thread{} each; {} tokens a rank, rows of {} {}\n",
             topology.ranks(), topology.ranks() == 1 ? "" : "s", node_sizes(topology),
             report.transport, report.threads, report.threads == 1 ? "" : "s", measured.tokens,
             measured.hidden, name_of(measured.dtype));
  fmt::print(
      "{} x {} experts, placement {}, {} choices{} from {}; {} flow{}, {} chunk{}\n",
      measured.groups(), measured.placement.shape().experts, report.placement,
      measured.choices(0).choices,
      measured.groups() == 2 ? fmt::format(" and {}", measured.choices(1).choices) : "",
      report.routing, name_of(measured.flow),
      measured.flow == Flow::pivot ? fmt::format(", pivots by {}", name_of(measured.rule)) : "",
      measured.chunks, measured.chunks == 1 ? "" : "s");
}

std::string times(const PathReport& path, const PhaseRow& row, double bytes) {
  const double median = path.median(row.phase);
  return fmt::format(" {:>10.3f} {:>10.3f} {:>8}", median * kMilli, path.least(row.phase) * kMilli,
                     bytes > 0 && median > 0 ? fmt::format("{:.3f}", bytes / median / kGiga) : "");
}

void print_times(const ExchangeCase& measured, const ExchangeReport& report) {
  fmt::print("{} steps; ms on the slowest rank; GB/s of the rows that tokens need, a rank\n",
             report.repeats);
  const bool both = report.alltoallv.has_value();
  if (both) {
    fmt::print("{:<24} {:^30} {:^30}\n", "", "exchange", "MPI_Alltoallv");
  }
  const auto columns = fmt::format(" {:>10} {:>10} {:>8}", "median", "least", "GB/s");
  fmt::print("{:<24}{}{}{}\n", "", columns, both ? columns : "", both ? "    ratio" : "");
  for (const PhaseRow& row : rows_of(measured)) {
    const double bytes = bytes_needed(measured, row);
    fmt::print("  {:<22}{}{}\n", row.label, times(report.exchange, row, bytes),
               both ? fmt::format("{} {:>8.2f}", times(*report.alltoallv, row, bytes),
                                  median_ratio(report.exchange, *report.alltoallv, row.phase))
                    : "");
  }
}

void print_traffic(const ExchangeCase& measured, const ExchangeReport& report) {
  const bool both = report.alltoallv.has_value();
  const auto columns = fmt::format(" {:>14} {:>15}", "rows", "MiB");
  fmt::print("sent in a step, there and back\n{:<24}{}{}\n", "", columns, both ? columns : "");
  const auto print = [&](const char* label, const auto& pick, std::size_t scope) {
    const auto numbers = [&](const PathReport& path) {
      const SentTraffic sent = pick(path);
      return fmt::format(" {:>14.0f} {:>15.3f}", sent.rows.at(scope), sent.bytes.at(scope) / kMiB);
    };
    fmt::print("  {:<22}{}{}\n", label, numbers(report.exchange),
               both ? numbers(*report.alltoallv) : "");
  };
  const auto sum = [](const PathReport& path) { return path.sum(); };
  print("inside nodes", sum, 0);
  print("between nodes", sum, 1);
  print(
      "from the busiest node",
      [&](const PathReport& path) { return path.busiest_node(measured.topology); }, 1);
  fmt::print(
      "  the exchange's groups of messages, one after the other, bring {:.3f} MiB over the\n"
      "  busiest node's link: what it has at least to wait for\n",
      busiest_link_bytes(report.exchange.sent_by_group, measured.topology) / kMiB);
}

ordered_json json_of(const SentTraffic& sent, std::size_t scope) {
  return {{"rows", sent.rows.at(scope)}, {"bytes", sent.bytes.at(scope)}};
}

ordered_json json_of(const ExchangeCase& measured, const PathReport& path) {
  ordered_json phases;
  for (const PhaseRow& row : rows_of(measured)) {
    const double bytes = bytes_needed(measured, row);
    const double median = path.median(row.phase);
    phases[row.key] = {{"median_s", median}, {"least_s", path.least(row.phase)}};
    if (bytes > 0 && median > 0) {
      phases[row.key]["algorithm_bytes_per_s"] = bytes / median;
    }
  }
  return {{"phases", std::move(phases)},
          {"intra", json_of(path.sum(), 0)},
          {"inter", json_of(path.sum(), 1)},
          {"busiest_node", json_of(path.busiest_node(measured.topology), 1)}};
}

}  // namespace

void print_report(const ExchangeCase& measured, const ExchangeReport& report) {
  print_header(measured, report);
  print_times(measured, report);
  print_traffic(measured, report);
  if (!report.alltoallv) {
    fmt::print("not compared with MPI_Alltoallv: {}\n", report.no_alltoallv);
  }
  if (report.validated) {
    fmt::print("validated: outputs, gradients, and rows as the itineraries say\n");
  }
}

ordered_json to_json(const ExchangeCase& measured, const ExchangeReport& report) {
  ordered_json sizes = ordered_json::array();
  for (int node = 0; node < measured.topology.nodes(); ++node) {
    sizes.push_back(measured.topology.ranks_of_node(node).size());
  }
  ordered_json choices = ordered_json::array();
  for (const RoutingTrace::SubLayer& sub_layer : measured.routing.sub_layers) {
    choices.push_back(sub_layer.choices);
  }
  ordered_json json = {{"version", version()},
                       {"commit", commit()},
                       {"transport", report.transport},
                       {"ranks", measured.topology.ranks()},
                       {"node_sizes", std::move(sizes)},
                       {"threads_per_rank", report.threads},
                       {"tokens_per_rank", measured.tokens},
                       {"hidden", measured.hidden},
                       {"dtype", name_of(measured.dtype)},
                       {"experts", measured.placement.shape().experts},
                       {"choices", std::move(choices)},
                       {"placement", report.placement},
                       {"routing", report.routing},
                       {"flow", name_of(measured.flow)},
                       {"pivot", name_of(measured.rule)},
                       {"chunks", measured.chunks},
                       {"repeats", report.repeats},
                       {"validated", report.validated},
                       {"exchange", json_of(measured, report.exchange)}};
  json["exchange"]["busiest_link_bytes"] =
      busiest_link_bytes(report.exchange.sent_by_group, measured.topology);
  if (report.alltoallv) {
    json["alltoallv"] = json_of(measured, *report.alltoallv);
    for (const PhaseRow& row : rows_of(measured)) {
      json["ratio"][row.key] = median_ratio(report.exchange, *report.alltoallv, row.phase);
    }
  }
  return json;
}

}  // namespace cartesian
