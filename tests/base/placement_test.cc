#include "base/placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <limits>

#include "base/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

std::vector<int> to_vector(std::span<const int> values) { return {values.begin(), values.end()}; }

/// experts_on() and slot() are the inverse of replicas().
void expect_consistent(const Placement& placement) {
  const PlacementShape& shape = placement.shape();
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int group = 0; group < shape.groups; ++group) {
      for (int rank = 0; rank < shape.ranks; ++rank) {
        const auto on = placement.experts_on(layer, group, rank);
        EXPECT_TRUE(std::is_sorted(on.begin(), on.end()));
        for (int expert = 0; expert < shape.experts; ++expert) {
          const auto replicas = placement.replicas(layer, group, expert);
          const bool here = std::count(replicas.begin(), replicas.end(), rank) == 1;
          const int slot = placement.slot(layer, group, rank, expert);
          EXPECT_EQ(slot >= 0, here);
          if (here) {
            EXPECT_EQ(on[static_cast<std::size_t>(slot)], expert);
          }
        }
      }
    }
  }
}

TEST(Placement, LinearSpreadsExpertsEvenly) {
  for (const int ranks : {1, 2, 3, 4, 7, 16}) {
    const Placement placement = Placement::linear({2, 2, 16, ranks}, ranks);
    expect_consistent(placement);
    std::vector<std::size_t> loads;
    for (int rank = 0; rank < ranks; ++rank) {
      loads.push_back(placement.experts_on(1, 1, rank).size());
    }
    const auto [least, most] = std::minmax_element(loads.begin(), loads.end());
    EXPECT_LE(*most - *least, 1U) << ranks;
  }
  const Placement placement = Placement::linear({1, 1, 5, 2}, 2);
  EXPECT_EQ(to_vector(placement.experts_on(0, 0, 0)), (std::vector{0, 1, 2}));
  EXPECT_EQ(to_vector(placement.experts_on(0, 0, 1)), (std::vector{3, 4}));
}

TEST(Placement, LinearReplicatesBetweenBlocks) {
  const Placement placement = Placement::linear({1, 2, 4, 6}, 2);
  expect_consistent(placement);
  EXPECT_EQ(to_vector(placement.replicas(0, 0, 0)), (std::vector{0, 2, 4}));
  EXPECT_EQ(to_vector(placement.replicas(0, 1, 3)), (std::vector{1, 3, 5}));
  for (const int wrong : {0, -1, 4, 12}) {
    expect_error<ConfigError>(
        [&] {
          (void)Placement::linear({1, 2, 4, 6}, wrong);
        },
        {"parallel.expert_ranks", std::to_string(wrong), "6"});
  }
}

TEST(Placement, FewerExpertsThanRanks) {
  const Placement placement = Placement::linear({1, 1, 2, 5}, 5);
  expect_consistent(placement);
  EXPECT_EQ(to_vector(placement.replicas(0, 0, 1)), (std::vector{2}));
}

TEST(Placement, LocalPutsEveryExpertInEveryNode) {
  const std::vector<std::string> hosts = {"x", "y", "x", "y", "y"};
  const Topology topology = Topology::from_host_names(hosts);
  const Placement placement = Placement::local({1, 2, 6, 5}, topology);
  expect_consistent(placement);
  EXPECT_EQ(to_vector(placement.replicas(0, 0, 0)), (std::vector{0, 1}));
  EXPECT_EQ(to_vector(placement.replicas(0, 0, 3)), (std::vector{2, 3}));
  EXPECT_EQ(to_vector(placement.replicas(0, 0, 5)), (std::vector{2, 4}));
}

TEST(Placement, RefusesWrongReplicas) {
  const PlacementShape shape = {1, 1, 2, 3};
  const auto expect_refused = [&](std::vector<std::vector<int>> replicas,
                                  std::initializer_list<std::string> mentions) {
    expect_error<ConfigError>([&] { Placement(shape, std::move(replicas)); }, mentions);
  };
  expect_refused({{0}}, {"2", "1"});
  expect_refused({{0}, {}}, {"layer 0, group 0, expert 1", "no rank"});
  expect_refused({{0}, {3}}, {"expert 1", "rank 3"});
  expect_refused({{-1}, {0}}, {"expert 0", "rank -1"});
  expect_refused({{0, 0}, {0}}, {"expert 0", "ascend"});
  expect_refused({{2, 1}, {0}}, {"expert 0", "ascend"});
  expect_error<ConfigError>([] { Placement({-1, 1, 1, 1}, {}); }, {"-1"});
  expect_error<ConfigError>([] { Placement({1, 1, 1, 0}, {{0}}); }, {"0 ranks"});
  constexpr int kBig = 2147483647;
  expect_error<ConfigError>([] { Placement({kBig, kBig, kBig, kBig}, {}); }, {"cannot be"});
}

class PlacementFile : public testing::Test {
 protected:
  Placement load(const std::string& text) {
    files_->write_atomically(path_, text);
    return Placement::load(*files_, path_, {1, 2, 2, 3});
  }
  template <class Expected = FormatError>
  void expect_refused(const std::string& text, std::initializer_list<std::string> mentions) {
    expect_error<Expected>([&] { (void)load(text); }, {path_.string()});
    expect_error<Expected>([&] { (void)load(text); }, mentions);
  }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_ = make_posix_file_system();
  Path path_ = directory_ / "placement.json";
};

constexpr auto kHead = R"({"version":1,"layers":1,"groups":2,"experts":2,"ranks":3,"replicas":)";

TEST_F(PlacementFile, RoundTrips) {
  const Placement placement({1, 2, 2, 3}, {{0}, {1, 2}, {0, 1, 2}, {2}});
  EXPECT_EQ(load(placement.to_json()), placement);
  EXPECT_EQ(load(std::string(kHead) + "[[[[0],[1,2]],[[0,1,2],[2]]]]}"), placement);
  const Placement none({0, 0, 0, 4}, {});
  files_->write_atomically(path_, none.to_json());
  EXPECT_EQ(Placement::load(*files_, path_, none.shape()), none);
}

TEST_F(PlacementFile, RefusesAnotherShape) {
  expect_refused<ConfigError>(Placement::linear({2, 2, 2, 3}, 3).to_json(),
                              {"2 MoE layers", "1 MoE"});
}

TEST_F(PlacementFile, RefusesMalformedFiles) {
  const std::string head = kHead;
  expect_refused("", {"not valid JSON"});
  expect_refused("[]", {"object"});
  expect_refused("{}", {"\"version\"", "missing"});
  expect_refused(R"({"version":2})", {"version 2", "1"});
  expect_refused(R"({"version":"1"})", {"\"version\"", "integer"});
  expect_refused(R"({"version":1,"layers":-1})", {"\"layers\"", "-1"});
  expect_refused(R"({"version":1,"layers":1})", {"\"groups\"", "missing"});
  expect_refused(head + "[], \"pivots\": 3}", {"unknown key \"pivots\""});
  expect_refused(head + "[], \"layers\": 1}", {"\"layers\"", "twice"});
  expect_refused(head + "3}", {"\"replicas\"", "array"});
  expect_refused(head + "[]}", {"\"replicas\"", "0 entries instead of 1"});
  expect_refused(head + "[[[[0],[1]]]]}", {"layer 0", "1 entries instead of 2"});
  expect_refused(head + "[[[[0],[1]],[[0]]]]}", {"layer 0, group 1", "1 entries instead of 2"});
  expect_refused(head + "[[[[0],1],[[0],[1]]]]}", {"expert 1", "array"});
  expect_refused(head + "[[[[0],[]],[[0],[1]]]]}", {"expert 1", "no rank"});
  expect_refused(head + "[[[[0],[3]],[[0],[1]]]]}", {"expert 1", "rank 3"});
  expect_refused(head + "[[[[0],[-1]],[[0],[1]]]]}", {"expert 1", "-1"});
  expect_refused(head + "[[[[0],[1,1]],[[0],[1]]]]}", {"expert 1", "ascend"});
  expect_refused(head + "[[[[0],[1.5]],[[0],[1]]]]}", {"expert 1", "integer"});
  expect_refused(head + "[[[[0],[4294967296]],[[0],[1]]]]}", {"expert 1", "4294967296"});
}

TEST_F(PlacementFile, NamesAMissingFile) {
  expect_error<FileError>(
      [&] {
        (void)Placement::load(*files_, path_, {1, 2, 2, 3});
      },
      {path_.string(), "No such file"});
}

TEST(Placement, PivotScoresAreKeptInTheFile) {
  const TemporaryDirectory directory;
  const auto files = make_posix_file_system();
  const PlacementShape shape{2, 2, 3, 4};
  const Placement plain = Placement::linear(shape, 4);
  EXPECT_TRUE(plain.pivot_scores(0, 0).empty());
  std::vector<float> scores(static_cast<std::size_t>(2 * 3 * 2));
  for (std::size_t i = 0; i < scores.size(); ++i) {
    scores[i] = 0.1F * static_cast<float>(i) / 3;
  }
  const Placement scored = plain.with_pivot_scores(2, scores);
  EXPECT_EQ(scored.pivot_scores(1, 2)[1], scores.back());
  EXPECT_FALSE(scored == plain);
  EXPECT_EQ(scored.without_pivot_scores(), plain);
  files->write_atomically(directory / "p.json", scored.to_json("{\"flow\": \"pivot\"}"));
  EXPECT_EQ(Placement::load(*files, directory / "p.json", shape), scored);

  scores[3] = std::numeric_limits<float>::infinity();
  expect_error<ConfigError>([&] { plain.with_pivot_scores(2, scores); },
                            {"pivot scores", "finite"});
  expect_error<ConfigError>([&] { plain.with_pivot_scores(3, {}); }, {"3 nodes"});
  std::string text = scored.to_json();
  text.replace(text.find("\"pivot_scores\": [\n  [["), 20, "\"pivot_scores\": [\n  [\"x\", [");
  files->write_atomically(directory / "p.json", text);
  EXPECT_THROW(Placement::load(*files, directory / "p.json", shape), FormatError);
}

}  // namespace
}  // namespace cartesian
