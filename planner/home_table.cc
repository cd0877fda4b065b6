#include "planner/home_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/error.h"
#include "base/index.h"
#include "base/json.h"
#include "base/safetensors.h"

namespace cartesian {

namespace {

constexpr std::int64_t kMostNumbers = std::int64_t{1} << 28;
constexpr const char* kTensor = "scores";

/// By id, as far as the trace goes.
struct Statistics {
  std::vector<double> counts;  // [vocabulary] tokens
  std::vector<double> sums;    // [vocabulary, nodes] of savings
  double squares = 0;          // of all savings
};

Statistics count(const RoutingTrace& trace, const HomeCosts& costs) {
  const auto nodes = as_index(costs.nodes());
  Statistics all{.counts = std::vector<double>(as_index(trace.vocab_size)),
                 .sums = std::vector<double>(as_index(trace.vocab_size) * nodes)};
  std::vector<double> savings(nodes);
  for (std::int64_t token = 0; token < trace.tokens; ++token) {
    const std::size_t id = as_index(trace.token_ids[as_index(token)]);
    costs.savings(token, savings);
    all.counts[id] += 1;
    for (std::size_t node = 0; node < nodes; ++node) {
      all.sums[id * nodes + node] += savings[node];
      all.squares += savings[node] * savings[node];
    }
  }
  return all;
}

/// How many tokens that save nothing an id's mean is taken with: s2 / t2, or infinity if ids do not
/// differ by more than their tokens do.
double shrinkage(const Statistics& all, std::size_t nodes) {
  double tokens = 0;
  double seen = 0;
  double between = 0;  // sum over tokens of the squared means of their ids
  for (std::size_t id = 0; id < all.counts.size(); ++id) {
    if (all.counts[id] > 0) {
      tokens += all.counts[id];
      ++seen;
      for (std::size_t node = 0; node < nodes; ++node) {
        const double sum = all.sums[id * nodes + node];
        between += sum * sum / all.counts[id];
      }
    }
  }
  if (tokens <= seen) {
    return std::numeric_limits<double>::infinity();
  }
  const double s2 = std::max(0.0, all.squares - between) / (tokens - seen);
  const double t2 = (between - seen * s2) / tokens;
  return t2 > 0 ? s2 / t2 : std::numeric_limits<double>::infinity();
}

}  // namespace

HomeTable make_home_table(const RoutingTrace& trace, const HomeCosts& costs) {
  check(costs.tokens() == trace.tokens, "costs are of the trace");
  if (!trace.has_text()) {
    throw ConfigError("the trace has no token ids");
  }
  if (trace.vocab_size > kMostNumbers / costs.nodes()) {
    throw ConfigError(fmt::format("a table of {} token ids and {} nodes would be too large",
                                  trace.vocab_size, costs.nodes()));
  }
  const auto nodes = as_index(costs.nodes());
  const Statistics all = count(trace, costs);
  const double prior = shrinkage(all, nodes);
  HomeTable table;
  table.vocab_size = trace.vocab_size;
  table.nodes = costs.nodes();
  table.scores.resize(all.sums.size());
  for (std::size_t i = 0; i < table.scores.size(); ++i) {
    const double tokens = all.counts[i / nodes];
    table.scores[i] = tokens > 0 ? static_cast<float>(all.sums[i] / (tokens + prior)) : 0;
  }
  return table;
}

std::vector<double> sequence_scores(const HomeTable& table, std::span<const std::int32_t> ids,
                                    std::int64_t length) {
  check(length > 0 && ids.size() % as_index(length) == 0, "ids of whole sequences");
  const auto nodes = as_index(table.nodes);
  std::vector<double> scores(ids.size() / as_index(length) * nodes);
  for (std::size_t token = 0; token < ids.size(); ++token) {
    check(ids[token] >= 0 && ids[token] < table.vocab_size, "ids within the vocabulary");
    const std::size_t sequence = token / as_index(length);
    for (std::size_t node = 0; node < nodes; ++node) {
      scores[sequence * nodes + node] += table.scores[as_index(ids[token]) * nodes + node];
    }
  }
  return scores;
}

void save_home_table(FileSystem& files, const Path& path, const HomeTable& table) {
  const std::vector<std::pair<std::string, SafetensorsEntry>> entries = {
      {kTensor,
       {.dtype = "F32",
        .shape = {table.vocab_size, table.nodes},
        .bytes = std::as_bytes(std::span(table.scores))}}};
  Path temporary = path;
  temporary += ".tmp";
  const auto file = files.create(temporary);
  write_safetensors(*file, entries,
                    {{"nodes", std::to_string(table.nodes)},
                     {"flow", table.flow},
                     {"trace", table.trace},
                     {"trace_xxh3", table.trace_xxh3},
                     {"placement", table.placement},
                     {"placement_xxh3", table.placement_xxh3}});
  file->sync();
  file->close();
  files.rename(temporary, path);
  files.sync_directory(path.parent_path());
}

HomeTable load_home_table(FileSystem& files, const Path& path) {
  const SafetensorsReader file(files, path);
  const auto fail = [&](const std::string& what) {
    throw FormatError(fmt::format("{}: {}", path.string(), what));
  };
  const auto text = [&](const std::string& key) {
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end()) {
      fail(fmt::format("metadata '{}' is missing", key));
    }
    return found->second;
  };
  const SafetensorsEntry& entry = file.at(kTensor);
  const auto extent = [](std::int64_t n) {
    return n >= 1 && n <= std::numeric_limits<std::int32_t>::max();
  };
  if (entry.dtype != "F32" || entry.shape.size() != 2 || !extent(entry.shape[0]) ||
      !extent(entry.shape[1])) {
    fail(fmt::format("tensor {} is not F32 [vocabulary, nodes]", quote(kTensor)));
  }
  HomeTable table{.vocab_size = entry.shape[0],
                  .nodes = static_cast<int>(entry.shape[1]),
                  .scores = std::vector<float>(as_index(entry.shape[0] * entry.shape[1])),
                  .flow = text("flow"),
                  .trace = text("trace"),
                  .trace_xxh3 = text("trace_xxh3"),
                  .placement = text("placement"),
                  .placement_xxh3 = text("placement_xxh3")};
  file.read_float32(kTensor, table.scores);
  if (!std::ranges::all_of(table.scores, [](float score) { return std::isfinite(score); })) {
    fail(fmt::format("tensor {} holds a score that is not finite", quote(kTensor)));
  }
  if (const std::string nodes = text("nodes"); nodes != std::to_string(table.nodes)) {
    fail(fmt::format("metadata 'nodes' is {}, but tensor {} has {} columns", quote(nodes),
                     quote(kTensor), table.nodes));
  }
  return table;
}

}  // namespace cartesian
