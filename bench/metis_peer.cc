#include "bench/metis_peer.h"

#include <metis.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "base/index.h"

namespace cartesian::bench {

namespace {

constexpr idx_t kCuts = 4;         // whole partitions of one call, of which METIS keeps the best
constexpr idx_t kTightest = 1;     // thousandths that a part may be too large
constexpr idx_t kLoosest = 30;     // METIS's own choice for k-way
constexpr double kHeaviest = 1e6;  // edge, so that sums stay far from idx_t's end

/// In the form that METIS reads: the neighbours of vertex v are at first[v] to first[v + 1].
struct Graph {
  std::vector<idx_t> first{0};
  std::vector<idx_t> neighbours;
  std::vector<idx_t> weights;
};

Graph co_activation(const Partition& partition, double between) {
  const auto weight_of = [&](int a, int b) {
    return static_cast<double>(partition.together(a, b)) *
           (partition.same_group(a, b) ? 1 : between);
  };
  double heaviest = 1;
  for (int a = 0; a < partition.experts(); ++a) {
    for (int b = 0; b < a; ++b) {
      heaviest = std::max(heaviest, weight_of(a, b));
    }
  }
  // Halves and quarters of counts stay different whole numbers.
  const double scale = std::min(4.0, kHeaviest / heaviest);
  Graph graph;
  for (int a = 0; a < partition.experts(); ++a) {
    for (int b = 0; b < partition.experts(); ++b) {
      const auto weight = static_cast<idx_t>(std::lround(scale * weight_of(a, b)));
      if (a != b && weight > 0) {
        graph.neighbours.push_back(b);
        graph.weights.push_back(weight);
      }
    }
    graph.first.push_back(static_cast<idx_t>(graph.neighbours.size()));
  }
  return graph;
}

/// [vertices] parts; empty if METIS gives up.
std::vector<int> cut(Graph& graph, int parts, int seed, bool bisect) {
  auto vertices = static_cast<idx_t>(graph.first.size() - 1);
  idx_t constraints = 1;
  idx_t wanted = parts;
  idx_t value = 0;
  std::array<idx_t, METIS_NOPTIONS> options{};
  METIS_SetDefaultOptions(options.data());
  options[METIS_OPTION_SEED] = seed;
  options[METIS_OPTION_NCUTS] = kCuts;
  options[METIS_OPTION_UFACTOR] = seed % 2 == 0 || bisect ? kTightest : kLoosest;
  std::vector<idx_t> part(as_index(vertices));
  const auto call = bisect ? METIS_PartGraphRecursive : METIS_PartGraphKway;
  const int status =
      call(&vertices, &constraints, graph.first.data(), graph.neighbours.data(), nullptr, nullptr,
           graph.weights.data(), &wanted, nullptr, nullptr, options.data(), &value, part.data());
  if (status != METIS_OK) {
    return {};
  }
  return {part.begin(), part.end()};
}

void repair_slots(Partition& partition, int slots) {
  while (true) {
    double best = -std::numeric_limits<double>::infinity();
    int moved = -1;
    int target = -1;
    for (int expert = 0; expert < partition.experts(); ++expert) {
      if (partition.node_size(partition.node_of(expert)) <= slots) {
        continue;
      }
      for (int node = 0; node < partition.nodes(); ++node) {
        if (partition.node_size(node) < slots && partition.gain(expert, node) > best) {
          best = partition.gain(expert, node);
          moved = expert;
          target = node;
        }
      }
    }
    if (moved < 0) {
      return;
    }
    partition.move(moved, target);
  }
}

}  // namespace

bool has_metis() { return true; }

void cut_by_metis(Partition& partition, const MetisOptions& options) {
  check(options.slots * partition.nodes() >= partition.experts(), "the slots hold the experts");
  std::vector<int> best;
  double least = std::numeric_limits<double>::infinity();
  for (const double between : options.between) {
    Graph graph = co_activation(partition, between);
    for (int seed = 0; seed < options.tries; ++seed) {
      for (const bool bisect : {false, true}) {
        const std::vector<int> parts = cut(graph, partition.nodes(), seed, bisect);
        if (parts.empty()) {
          continue;
        }
        partition.assign(parts);
        repair_slots(partition, options.slots);
        if (partition.cost() < least) {
          least = partition.cost();
          best = partition.assignment();
        }
      }
    }
  }
  check(!best.empty(), "METIS cuts the graph");
  partition.assign(best);
}

}  // namespace cartesian::bench
