#include "planner/homes.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/index.h"
#include "planner/dice.h"
#include "planner/transportation.h"

namespace cartesian {

namespace {

constexpr std::uint64_t kSeed = 1;
constexpr int kDrawings = 8;

/// Scores as integers, so that sums of them are exact: the largest is 2^40.
std::vector<std::int64_t> fixed_point(std::span<const double> scores) {
  double largest = 0;
  for (const double score : scores) {
    largest = std::max(largest, std::abs(score));
  }
  std::vector<std::int64_t> fixed(scores.size());
  if (largest > 0) {
    std::ranges::transform(scores, fixed.begin(), [&](double score) {
      return static_cast<std::int64_t>(std::llround(std::ldexp(score / largest, 40)));
    });
  }
  return fixed;
}

/// What every sequence saves in truth: [sequences, nodes].
std::vector<double> true_savings(const RoutingTrace& trace, const HomeCosts& costs) {
  const auto nodes = as_index(costs.nodes());
  const auto length = as_index(trace.sequence_length);
  std::vector<double> sums(as_index(trace.tokens) / length * nodes);
  std::vector<double> savings(nodes);
  for (std::int64_t token = 0; token < trace.tokens; ++token) {
    costs.savings(token, savings);
    for (std::size_t node = 0; node < nodes; ++node) {
      sums[as_index(token) / length * nodes + node] += savings[node];
    }
  }
  return sums;
}

/// What these sequences, a batch, save with homes by `scores`. Both are [all sequences, nodes].
double saved(std::span<const std::size_t> batch, std::span<const double> scores,
             std::span<const double> savings, const Topology& topology) {
  const auto nodes = as_index(topology.nodes());
  std::vector<double> of_batch;
  for (const std::size_t sequence : batch) {
    const auto row = scores.subspan(sequence * nodes, nodes);
    of_batch.insert(of_batch.end(), row.begin(), row.end());
  }
  const std::vector<int> homes = assign_homes(of_batch, topology);
  double sum = 0;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    sum += savings[batch[i] * nodes + as_index(topology.node(homes[i]))];
  }
  return sum;
}

}  // namespace

std::int64_t home_sequences(std::int64_t total, int rank, int ranks) {
  return total * (rank + 1) / ranks - total * rank / ranks;
}

std::vector<int> assign_homes(std::span<const double> scores, const Topology& topology) {
  const auto nodes = as_index(topology.nodes());
  check(scores.size() % nodes == 0, "a score for every sequence and node");
  const auto total = static_cast<std::int64_t>(scores.size() / nodes);
  std::vector<int> room(nodes);
  std::vector<std::vector<int>> turns(nodes);  // ranks, once for each sequence
  for (std::size_t node = 0; node < nodes; ++node) {
    const auto ranks = topology.ranks_of_node(static_cast<int>(node));
    for (std::int64_t turn = 0; turn <= total / topology.ranks(); ++turn) {
      std::ranges::copy_if(ranks, std::back_inserter(turns[node]), [&](int rank) {
        return turn < home_sequences(total, rank, topology.ranks());
      });
    }
    room[node] = static_cast<int>(turns[node].size());
  }
  std::vector<int> homes = assign_rows(fixed_point(scores), room);
  std::vector<std::size_t> taken(nodes);
  for (int& home : homes) {
    const auto node = as_index(home);
    home = turns[node][taken[node]++];
  }
  return homes;
}

HomeSavings measure_homes(const RoutingTrace& trace, const HomeCosts& costs, const HomeTable& table,
                          const Topology& topology, std::int64_t batch_sequences) {
  check(trace.has_text() && table.nodes == topology.nodes() && costs.tokens() == trace.tokens &&
            batch_sequences >= 1,
        "text, table and costs are of one trace and topology");
  const std::vector<double> scores = sequence_scores(table, trace.token_ids, trace.sequence_length);
  const std::vector<double> savings = true_savings(trace, costs);
  std::vector<std::size_t> order(as_index(trace.tokens / trace.sequence_length));
  std::iota(order.begin(), order.end(), 0);
  Dice dice(kSeed);
  double by_table = 0;
  double at_best = 0;
  for (int drawing = 0; drawing < kDrawings; ++drawing) {
    dice.shuffle(order);
    for (std::size_t begin = 0; begin < order.size(); begin += as_index(batch_sequences)) {
      const auto batch = std::span(order).subspan(
          begin, std::min(as_index(batch_sequences), order.size() - begin));
      by_table += saved(batch, scores, savings, topology);
      at_best += saved(batch, savings, savings, topology);
    }
  }
  const double uniform = costs.uniform();
  const auto tokens = kDrawings * static_cast<double>(std::max<std::int64_t>(1, trace.tokens));
  return {.uniform = uniform,
          .by_table = uniform - by_table / tokens,
          .at_best = uniform - at_best / tokens};
}

}  // namespace cartesian
