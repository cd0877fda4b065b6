// Tables, scores and homes against their definitions: copies counted with every token at home on a
// node, all balanced assignments of small batches.

#include "planner/homes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/safetensors.h"
#include "planner/dice.h"
#include "planner/synthetic_trace.h"
#include "planner/traffic.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace cartesian::test {
namespace {

Topology uneven() { return Topology::from_node_sizes(std::vector<int>{2, 1, 3}, 6); }

Placement linear(const RoutingTrace& trace, const Topology& topology) {
  return Placement::linear(placement_shape(trace, topology.ranks()), topology.ranks());
}

RoutingTrace with_text(int layers = 1) {
  return make_synthetic_trace({.layers = layers,
                               .experts = 12,
                               .tokens = 960,
                               .cluster = 4,
                               .vocab_size = 40,
                               .sequence_length = 24},
                              5);
}

HomeCosts costs_of(const RoutingTrace& trace, const Topology& topology, Flow flow = Flow::pivot) {
  return {trace, linear(trace, topology), topology, flow, PivotRule::speculative, 1};
}

/// A trace of tokens that choose one expert, of 2 on 2 nodes: token i chooses experts[i].
RoutingTrace one_choice(const std::vector<std::int16_t>& experts,
                        const std::vector<std::int32_t>& ids) {
  RoutingTrace trace;
  trace.tokens = static_cast<std::int64_t>(experts.size());
  trace.experts = 2;
  trace.sub_layers.push_back({.block = 0,
                              .group = 0,
                              .choices = 1,
                              .ids = experts,
                              .gates = std::vector<float>(experts.size(), 1.0F),
                              .speculative_ids = {}});
  trace.token_ids = ids;
  trace.vocab_size = 5;
  trace.sequence_length = 1;
  return trace;
}

double sum_of(const std::vector<double>& scores, const std::vector<int>& homes,
              const Topology& topology) {
  double sum = 0;
  for (std::size_t i = 0; i < homes.size(); ++i) {
    sum += scores[i * static_cast<std::size_t>(topology.nodes()) +
                  static_cast<std::size_t>(topology.node(homes[i]))];
  }
  return sum;
}

/// The largest sum of all assignments in which every rank has its share.
double best_sum(const std::vector<double>& scores, const Topology& topology) {
  const auto total = static_cast<std::int64_t>(scores.size()) / topology.nodes();
  std::vector<int> homes;
  for (int rank = 0; rank < topology.ranks(); ++rank) {
    homes.insert(homes.end(),
                 static_cast<std::size_t>(home_sequences(total, rank, topology.ranks())), rank);
  }
  double best = -std::numeric_limits<double>::infinity();
  do {
    best = std::max(best, sum_of(scores, homes, topology));
  } while (std::ranges::next_permutation(homes).found);
  return best;
}

std::vector<double> random_scores(int sequences, const Topology& topology, std::uint64_t seed) {
  Dice dice(seed);
  std::vector<double> scores(static_cast<std::size_t>(sequences * topology.nodes()));
  std::ranges::generate(scores, [&] { return dice.uniform() - 0.5; });
  return scores;
}

TEST(HomeCosts, AreWhatIsCountedWithEveryTokenAtHomeThere) {
  for (const Flow flow : {Flow::flat, Flow::home, Flow::pivot}) {
    RoutingTrace trace = with_text(3);
    const HomeCosts costs = costs_of(trace, uneven(), flow);
    double uniform = 0;
    for (int rank = 0; rank < 6; ++rank) {
      trace.home.assign(static_cast<std::size_t>(trace.tokens), rank);
      double counted = 0;
      int index = 0;
      for (const LayerTrace& layer : layers_of(trace)) {
        counted += count_traffic(layer, index++, linear(trace, uneven()), uneven(), {.flow = flow})
                       .copies();
      }
      double sum = 0;
      for (std::int64_t token = 0; token < trace.tokens; ++token) {
        sum += costs.of(token)[static_cast<std::size_t>(uneven().node(rank))];
      }
      EXPECT_NEAR(sum, counted, 1e-6 * counted) << name_of(flow) << ", rank " << rank;
      uniform += counted / 6 / static_cast<double>(trace.tokens);
    }
    EXPECT_NEAR(costs.uniform(), uniform, 1e-6);
  }
}

TEST(HomeCosts, AreTheSameOnAnyThreads) {
  const RoutingTrace trace = make_synthetic_trace({.tokens = 4000}, 2);
  const Topology nodes = Topology::from_node_sizes(std::vector<int>{1, 1, 1, 1}, 4);
  const Placement placement = linear(trace, nodes);
  const HomeCosts one(trace, placement, nodes, Flow::pivot, PivotRule::table, 1);
  const HomeCosts three(trace, placement, nodes, Flow::pivot, PivotRule::table, 3);
  for (std::int64_t token = 0; token < trace.tokens; ++token) {
    EXPECT_TRUE(std::ranges::equal(one.of(token), three.of(token)));
  }
}

TEST(HomeTable, MeansAreShrunkByTheMoments) {
  // A token whose expert is on the other node needs 2 copies, else none: it saves 1 or -1. Id 0
  // saves 1, 1, 1, -1 on node 0, id 1 -1, -1, id 3 1; ids 2 and 4 are not seen.
  const RoutingTrace trace = one_choice({0, 0, 0, 1, 1, 1, 0}, {0, 0, 0, 0, 1, 1, 3});
  const Topology nodes = Topology::from_node_sizes(std::vector<int>{1, 1}, 2);
  const HomeTable table = make_home_table(trace, costs_of(trace, nodes));
  const double between = 2 * (2.0 * 2 / 4 + 2.0 * 2 / 2 + 1);
  const double s2 = (14 - between) / (7 - 3);
  const double prior = s2 / ((between - 3 * s2) / 7);
  EXPECT_EQ(table.nodes, 2);
  EXPECT_EQ(table.vocab_size, 5);
  const std::vector<double> on_first = {2 / (4 + prior), -2 / (2 + prior), 0, 1 / (1 + prior), 0};
  for (std::size_t id = 0; id < 5; ++id) {
    EXPECT_NEAR(table.scores[2 * id], on_first[id], 1e-6) << id;
    EXPECT_NEAR(table.scores[2 * id + 1], -on_first[id], 1e-6) << id;
  }
  EXPECT_EQ(sequence_scores(table, std::vector<std::int32_t>{0, 2, 1, 1}, 2),
            (std::vector<double>{table.scores[0], table.scores[1], 2.0 * table.scores[2],
                                 2.0 * table.scores[3]}));
}

TEST(HomeTable, IdsThatDoNotDifferScoreNothing) {
  const Topology nodes = Topology::from_node_sizes(std::vector<int>{1, 1}, 2);
  for (const RoutingTrace& trace :
       {one_choice({0, 1, 0, 1}, {0, 0, 1, 1}), one_choice({0, 1}, {0, 1}), one_choice({}, {})}) {
    const HomeTable table = make_home_table(trace, costs_of(trace, nodes));
    EXPECT_EQ(table.scores, std::vector<float>(10));
  }
}

TEST(HomeTable, OfATraceWithoutTextIsRefused) {
  RoutingTrace trace = make_synthetic_trace({}, 1);
  expect_error<ConfigError>([&] { make_home_table(trace, costs_of(trace, uneven())); },
                            {"no token ids"});
  trace = one_choice({0}, {0});
  trace.vocab_size = 1 << 30;
  expect_error<ConfigError>([&] { make_home_table(trace, costs_of(trace, uneven())); },
                            {"1073741824", "too large"});
}

TEST(AssignHomes, EveryRankHasItsShareAndNoAssignmentIsBetter) {
  const std::vector<Topology> topologies = {uneven(),
                                            Topology::from_node_sizes(std::vector<int>{1, 1, 1}, 3),
                                            Topology({0, 1, 0, 1}), Topology::single_node(2)};
  for (const Topology& topology : topologies) {
    for (int sequences = 0; sequences <= 8; ++sequences) {
      const auto scores =
          random_scores(sequences, topology, static_cast<std::uint64_t>(sequences) + 1);
      const std::vector<int> homes = assign_homes(scores, topology);
      ASSERT_EQ(homes.size(), static_cast<std::size_t>(sequences));
      for (int rank = 0; rank < topology.ranks(); ++rank) {
        const auto held = std::ranges::count(homes, rank);
        EXPECT_EQ(held, home_sequences(sequences, rank, topology.ranks()));
        EXPECT_LE(std::abs(static_cast<double>(held) - 1.0 * sequences / topology.ranks()), 1);
      }
      EXPECT_NEAR(sum_of(scores, homes, topology), best_sum(scores, topology), 1e-9);
    }
  }
}

TEST(AssignHomes, LargeBatchesCannotBeImprovedByRotatingThreeSequences) {
  const Topology topology = uneven();
  const auto scores = random_scores(300, topology, 9);
  const std::vector<int> homes = assign_homes(scores, topology);
  const auto score = [&](std::size_t sequence, int rank) {
    return scores[sequence * 3 + static_cast<std::size_t>(topology.node(rank))];
  };
  double most = 0;  // that exchanging two or three homes would gain
  for (std::size_t i = 0; i < 300; ++i) {
    for (std::size_t j = 0; j < 300; ++j) {
      const double two = score(i, homes[j]) - score(i, homes[i]);
      most = std::max(most, two + score(j, homes[i]) - score(j, homes[j]));
      for (std::size_t k = 0; k < 300; k += 7) {
        most = std::max(most, two + score(j, homes[k]) - score(j, homes[j]) + score(k, homes[i]) -
                                  score(k, homes[k]));
      }
    }
  }
  EXPECT_LT(most, 1e-9);
}

TEST(AssignHomes, EqualScoresAreFine) {
  const std::vector<int> homes = assign_homes(std::vector<double>(3 * 12), uneven());
  for (int rank = 0; rank < 6; ++rank) {
    EXPECT_EQ(std::ranges::count(homes, rank), 2);
  }
}

TEST(MeasureHomes, TopicsSaveAndNothingSavesMoreThanTheBest) {
  const Topology nodes = Topology::from_node_sizes(std::vector<int>{1, 1, 1, 1}, 4);
  SyntheticTraceSpec spec{.layers = 2,
                          .experts = 16,
                          .tokens = 6400,
                          .cluster = 4,
                          .vocab_size = 64,
                          .sequence_length = 32};
  const RoutingTrace trace = make_synthetic_trace(spec, 1);
  const RoutingTrace held_out = make_synthetic_trace(spec, 2);
  // Every topic on a node of its own.
  std::vector<std::vector<int>> replicas;
  for (int i = 0; i < 2 * 2 * 16; ++i) {
    replicas.push_back({i % 4});
  }
  const Placement placement(placement_shape(trace, 4), replicas);
  const auto costs = [&](const RoutingTrace& of) {
    return HomeCosts(of, placement, nodes, Flow::pivot, PivotRule::speculative, 1);
  };
  const HomeTable table = make_home_table(trace, costs(trace));
  for (const RoutingTrace* of : {&trace, &held_out}) {
    for (const int batch : {1, 16, 64, 1000}) {
      const HomeSavings copies = measure_homes(*of, costs(*of), table, nodes, batch);
      EXPECT_LE(copies.at_best, copies.by_table + 1e-9);
      if (batch > 1) {  // else the one rank that has a sequence is given
        EXPECT_LT(copies.by_table, 0.9 * copies.uniform) << batch;
      }
    }
  }
}

TEST(MeasureHomes, ScoresAreNeverBelowThoseOfHomesAsTheyCome) {
  const RoutingTrace trace = with_text();
  const HomeTable table = make_home_table(trace, costs_of(trace, uneven()));
  const std::vector<double> scores = sequence_scores(table, trace.token_ids, trace.sequence_length);
  std::vector<int> as_they_come;
  for (int i = 0; i < 40; ++i) {
    as_they_come.push_back(i * 6 / 40);
  }
  std::ranges::sort(as_they_come);
  EXPECT_GE(sum_of(scores, assign_homes(scores, uneven()), uneven()),
            sum_of(scores, as_they_come, uneven()));
  EXPECT_GE(sum_of(scores, assign_homes(scores, uneven()), uneven()), 0);
}

class HomeTableFile : public testing::Test {
 protected:
  void save(const std::string& dtype, const std::vector<std::int64_t>& shape,
            const std::vector<float>& scores, std::map<std::string, std::string> metadata) {
    const auto file = files_->create(path_);
    const std::pair<std::string, SafetensorsEntry> entry = {
        "scores", {.dtype = dtype, .shape = shape, .bytes = std::as_bytes(std::span(scores))}};
    for (const char* key : {"flow", "trace", "trace_xxh3", "placement", "placement_xxh3"}) {
      metadata.emplace(key, "");
    }
    write_safetensors(*file, {&entry, 1}, metadata);
    file->close();
  }
  void expect_refused(const std::string& mention) {
    expect_error<FormatError>([&] { load_home_table(*files_, path_); }, {path_.string(), mention});
  }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_ = make_posix_file_system();
  Path path_ = directory_ / "homes.safetensors";
};

TEST_F(HomeTableFile, RoundTrip) {
  const HomeTable table{.vocab_size = 2,
                        .nodes = 3,
                        .scores = {0.5F, -1, 0.5F, 0, 0, 0},
                        .flow = "pivot",
                        .trace = "a trace",
                        .trace_xxh3 = "1",
                        .placement = "a placement",
                        .placement_xxh3 = "2"};
  save_home_table(*files_, path_, table);
  const HomeTable read = load_home_table(*files_, path_);
  EXPECT_EQ(read.vocab_size, 2);
  EXPECT_EQ(read.nodes, 3);
  EXPECT_EQ(read.scores, table.scores);
  EXPECT_EQ(read.flow, "pivot");
  EXPECT_EQ(read.trace, "a trace");
  EXPECT_EQ(read.trace_xxh3, "1");
  EXPECT_EQ(read.placement, "a placement");
  EXPECT_EQ(read.placement_xxh3, "2");
  EXPECT_EQ(files_->list(directory_.path()), std::vector<std::string>{"homes.safetensors"});
}

TEST_F(HomeTableFile, RefusesWhatIsNoTable) {
  const std::vector<float> scores = {1, 2, 3, 4};
  save("F32", {4}, scores, {{"nodes", "2"}});
  expect_refused("[vocabulary, nodes]");
  save("I32", {2, 2}, scores, {{"nodes", "2"}});
  expect_refused("not F32");
  save("F32", {0, 2}, {}, {{"nodes", "2"}});
  expect_refused("[vocabulary, nodes]");
  save("F32", {2, 2}, scores, {{"nodes", "4"}});
  expect_refused("2 columns");
  save("F32", {2, 2}, scores, {});
  expect_refused("'nodes' is missing");
  save("F32", {1, 1}, {std::numeric_limits<float>::infinity()}, {{"nodes", "1"}});
  expect_refused("not finite");
}

}  // namespace
}  // namespace cartesian::test
