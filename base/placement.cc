#include "base/placement.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "base/json.h"

namespace cartesian {

namespace {

using nlohmann::json;

constexpr std::int64_t kVersion = 1;
// Far above any model; keeps the products of a shape from overflowing.
constexpr int kMaxExtent = 1 << 20;

std::string describe(int layer, int group, int expert) {
  return fmt::format("layer {}, group {}, expert {}", layer, group, expert);
}

std::string describe(const PlacementShape& shape) {
  return fmt::format("{} MoE layers of {} groups of {} experts on {} ranks", shape.layers,
                     shape.groups, shape.experts, shape.ranks);
}

void check_shape(const PlacementShape& shape) {
  const auto within = [](int extent, int min) { return extent >= min && extent <= kMaxExtent; };
  if (!within(shape.layers, 0) || !within(shape.groups, 0) || !within(shape.experts, 0) ||
      !within(shape.ranks, 1)) {
    throw ConfigError(fmt::format("a placement of {} cannot be", describe(shape)));
  }
}

std::size_t count_experts(const PlacementShape& shape) {
  return static_cast<std::size_t>(shape.layers) * static_cast<std::size_t>(shape.groups) *
         static_cast<std::size_t>(shape.experts);
}

/// Calls visit(layer, group, expert) in the order of `replicas_`.
template <class Visit>
void for_each_expert(const PlacementShape& shape, Visit visit) {
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int group = 0; group < shape.groups; ++group) {
      for (int expert = 0; expert < shape.experts; ++expert) {
        visit(layer, group, expert);
      }
    }
  }
}

/// floor(expert * parts / experts): spreads experts evenly over `parts`, neighbours together.
int part_of(int expert, int parts, int experts) {
  return static_cast<int>(static_cast<std::int64_t>(expert) * parts / experts);
}

/// `where()` names the expert in an error.
template <class Where>
void check_replicas(const PlacementShape& shape, std::span<const int> ranks, const Where& where) {
  if (ranks.empty()) {
    throw ConfigError(fmt::format("placement: {} is on no rank", where()));
  }
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    if (ranks[i] < 0 || ranks[i] >= shape.ranks) {
      throw ConfigError(fmt::format("placement: {} is on rank {}, but there are {} ranks", where(),
                                    ranks[i], shape.ranks));
    }
    if (i > 0 && ranks[i] <= ranks[i - 1]) {
      throw ConfigError(fmt::format("placement: ranks [{}] of {} do not ascend",
                                    fmt::join(ranks, ", "), where()));
    }
  }
}

/// array[i] of an array that must have `size` elements.
void check_array(const json& array, int size, const std::string& what, const std::string& source) {
  if (!array.is_array()) {
    throw FormatError(fmt::format("{}: {} must be an array", source, what));
  }
  if (array.size() != static_cast<std::size_t>(size)) {
    throw FormatError(
        fmt::format("{}: {} has {} entries instead of {}", source, what, array.size(), size));
  }
}

PlacementShape read_shape(const json& root, const std::string& source) {
  const auto extent = [&](const char* key, int min) {
    return static_cast<int>(json_integer(json_at(root, key, source), min, kMaxExtent,
                                         fmt::format("\"{}\"", key), source));
  };
  return {extent("layers", 0), extent("groups", 0), extent("experts", 0), extent("ranks", 1)};
}

std::vector<int> read_ranks(const json& ranks, const std::string& where,
                            const std::string& source) {
  if (!ranks.is_array()) {
    throw FormatError(fmt::format("{}: the ranks of {} must be an array", source, where));
  }
  std::vector<int> result;
  for (const json& rank : ranks) {
    constexpr int kMax = std::numeric_limits<int>::max();
    result.push_back(static_cast<int>(json_integer(rank, 0, kMax, "a rank of " + where, source)));
  }
  return result;
}

/// The placement with the file's "pivot_scores": [layer][expert of A][node].
Placement read_scores(Placement placement, const json& root, const std::string& source) {
  const PlacementShape& shape = placement.shape();
  const json& layers = root.at("pivot_scores");
  check_array(layers, shape.layers, "\"pivot_scores\"", source);
  std::vector<float> scores;
  int nodes = -1;
  for (const json& experts : layers) {
    check_array(experts, shape.experts, "\"pivot_scores\" of a layer", source);
    for (const json& row : experts) {
      nodes = nodes < 0 && row.is_array() ? static_cast<int>(row.size()) : nodes;
      check_array(row, nodes, "\"pivot_scores\" of an expert", source);
      for (const json& score : row) {
        if (!score.is_number()) {
          throw FormatError(fmt::format("{}: \"pivot_scores\" must hold numbers", source));
        }
        scores.push_back(score.get<float>());
      }
    }
  }
  return nodes < 0 ? std::move(placement) : placement.with_pivot_scores(nodes, std::move(scores));
}

}  // namespace

Placement::Placement(PlacementShape shape, std::vector<std::vector<int>> replicas)
    : shape_(shape), replicas_(std::move(replicas)) {
  check_shape(shape_);
  if (replicas_.size() != count_experts(shape_)) {
    throw ConfigError(fmt::format("a placement of {} needs {} lists of ranks, not {}",
                                  describe(shape_), count_experts(shape_), replicas_.size()));
  }
  for_each_expert(shape_, [&](int layer, int group, int expert) {
    check_replicas(shape_, replicas_[index(layer, group, expert)],
                   [&] { return describe(layer, group, expert); });
  });
  list_experts_on();
}

void Placement::list_experts_on() {
  const std::size_t lists = static_cast<std::size_t>(shape_.layers) *
                            static_cast<std::size_t>(shape_.groups) *
                            static_cast<std::size_t>(shape_.ranks);
  first_on_.resize(lists + 1);
  const auto for_each_replica = [&](const auto& visit) {
    for_each_expert(shape_, [&](int layer, int group, int expert) {
      for (const int rank : replicas_[index(layer, group, expert)]) {
        visit(slots_index(layer, group, rank), expert);
      }
    });
  };
  for_each_replica([&](std::size_t list, int) { ++first_on_[list + 1]; });
  std::partial_sum(first_on_.begin(), first_on_.end(), first_on_.begin());
  experts_on_.resize(first_on_.back());
  std::vector<std::size_t> next(first_on_.begin(), first_on_.end() - 1);
  for_each_replica([&](std::size_t list, int expert) { experts_on_[next[list]++] = expert; });
}

Placement Placement::linear(PlacementShape shape, int ranks_per_group) {
  check_shape(shape);
  if (ranks_per_group < 1 || shape.ranks % ranks_per_group != 0) {
    throw ConfigError(fmt::format("parallel.expert_ranks = {} does not divide the job's {} ranks",
                                  ranks_per_group, shape.ranks));
  }
  std::vector<std::vector<int>> replicas;
  replicas.reserve(count_experts(shape));
  for_each_expert(shape, [&](int, int, int expert) {
    auto& ranks = replicas.emplace_back();
    for (int block = 0; block < shape.ranks; block += ranks_per_group) {
      ranks.push_back(block + part_of(expert, ranks_per_group, shape.experts));
    }
  });
  return {shape, std::move(replicas)};
}

Placement Placement::local(PlacementShape shape, const Topology& topology) {
  check_shape(shape);
  check(topology.ranks() == shape.ranks, "the topology is of another job");
  std::vector<std::vector<int>> replicas;
  replicas.reserve(count_experts(shape));
  for_each_expert(shape, [&](int, int, int expert) {
    auto& ranks = replicas.emplace_back();
    for (int node = 0; node < topology.nodes(); ++node) {
      const auto members = topology.ranks_of_node(node);
      const int local = part_of(expert, static_cast<int>(members.size()), shape.experts);
      ranks.push_back(members[static_cast<std::size_t>(local)]);
    }
    std::sort(ranks.begin(), ranks.end());
  });
  return {shape, std::move(replicas)};
}

Placement Placement::load(FileSystem& files, const Path& path, PlacementShape expected) {
  return parse(files.read(path), path.string(), expected);
}

Placement Placement::parse(const std::string& text, const std::string& source,
                           PlacementShape expected) {
  const json root = parse_json(text, source);
  const std::int64_t version =
      json_integer(json_at(root, "version", source), 0, std::numeric_limits<std::int64_t>::max(),
                   "\"version\"", source);
  if (version != kVersion) {
    throw FormatError(fmt::format("{}: placement version {} is not known; this build reads {}",
                                  source, version, kVersion));
  }
  check_json_keys(
      root, {"version", "layers", "groups", "experts", "ranks", "replicas", "pivot_scores", "plan"},
      source);
  const PlacementShape shape = read_shape(root, source);
  if (shape != expected) {
    throw ConfigError(fmt::format("{} places {}, but this run has {}", source, describe(shape),
                                  describe(expected)));
  }

  const json& layers = json_at(root, "replicas", source);
  check_array(layers, shape.layers, "\"replicas\"", source);
  std::vector<std::vector<int>> replicas;
  for (int layer = 0; layer < shape.layers; ++layer) {
    const json& groups = layers[static_cast<std::size_t>(layer)];
    check_array(groups, shape.groups, fmt::format("\"replicas\" of layer {}", layer), source);
    for (int group = 0; group < shape.groups; ++group) {
      const json& experts = groups[static_cast<std::size_t>(group)];
      check_array(experts, shape.experts,
                  fmt::format("\"replicas\" of layer {}, group {}", layer, group), source);
      for (int expert = 0; expert < shape.experts; ++expert) {
        replicas.push_back(read_ranks(experts[static_cast<std::size_t>(expert)],
                                      describe(layer, group, expert), source));
      }
    }
  }
  try {
    Placement placement(shape, std::move(replicas));
    return root.contains("pivot_scores") ? read_scores(std::move(placement), root, source)
                                         : placement;
  } catch (const ConfigError& error) {
    throw FormatError(fmt::format("{}: {}", source, error.what()));
  }
}

std::string Placement::to_json(const std::string& plan) const {
  std::string text = fmt::format(
      "{{\"version\": {}, \"layers\": {}, \"groups\": {}, \"experts\": {}, \"ranks\": {},\n"
      " \"replicas\": [",
      kVersion, shape_.layers, shape_.groups, shape_.experts, shape_.ranks);
  for (int layer = 0; layer < shape_.layers; ++layer) {
    text += layer == 0 ? "\n  [" : ",\n  [";
    for (int group = 0; group < shape_.groups; ++group) {
      text += group == 0 ? "[" : ",\n   [";
      for (int expert = 0; expert < shape_.experts; ++expert) {
        text += fmt::format("{}[{}]", expert == 0 ? "" : ",",
                            fmt::join(replicas(layer, group, expert), ","));
      }
      text += "]";
    }
    text += "]";
  }
  text += "]";
  if (score_nodes_ > 0) {
    text += ",\n \"pivot_scores\": [";
    for (int layer = 0; layer < shape_.layers; ++layer) {
      text += layer == 0 ? "\n  [" : ",\n  [";
      for (int expert = 0; expert < shape_.experts; ++expert) {
        text += fmt::format("{}[{}]", expert == 0 ? "" : ",",
                            fmt::join(pivot_scores(layer, expert), ","));
      }
      text += "]";
    }
    text += "]";
  }
  return text + (plan.empty() ? "" : ",\n \"plan\": " + plan) + "}\n";
}

std::span<const int> Placement::replicas(int layer, int group, int expert) const {
  return replicas_[index(layer, group, expert)];
}

std::span<const int> Placement::experts_on(int layer, int group, int rank) const {
  const std::size_t list = slots_index(layer, group, rank);
  return std::span(experts_on_).subspan(first_on_[list], first_on_[list + 1] - first_on_[list]);
}

std::span<const float> Placement::pivot_scores(int layer, int expert) const {
  if (score_nodes_ == 0) {
    return {};
  }
  check(layer >= 0 && layer < shape_.layers && expert >= 0 && expert < shape_.experts,
        "no such expert in the placement");
  const auto nodes = static_cast<std::size_t>(score_nodes_);
  const std::size_t row =
      static_cast<std::size_t>(layer) * static_cast<std::size_t>(shape_.experts) +
      static_cast<std::size_t>(expert);
  return std::span(pivot_scores_).subspan(row * nodes, nodes);
}

Placement Placement::with_pivot_scores(int nodes, std::vector<float> scores) const {
  const std::size_t rows =
      static_cast<std::size_t>(shape_.layers) * static_cast<std::size_t>(shape_.experts);
  if (nodes < 1 || scores.size() != rows * static_cast<std::size_t>(nodes) ||
      !std::ranges::all_of(scores, [](float score) { return std::isfinite(score); })) {
    throw ConfigError(fmt::format(
        "placement: pivot scores must be finite, one for each of {} MoE layers, {} experts of A "
        "and {} nodes",
        shape_.layers, shape_.experts, nodes));
  }
  Placement copy = *this;
  copy.score_nodes_ = nodes;
  copy.pivot_scores_ = std::move(scores);
  return copy;
}

Placement Placement::without_pivot_scores() const {
  Placement copy = *this;
  copy.score_nodes_ = 0;
  copy.pivot_scores_.clear();
  return copy;
}

int Placement::slot(int layer, int group, int rank, int expert) const {
  const auto experts = experts_on(layer, group, rank);
  const auto found = std::lower_bound(experts.begin(), experts.end(), expert);
  return found != experts.end() && *found == expert ? static_cast<int>(found - experts.begin())
                                                    : -1;
}

std::size_t Placement::index(int layer, int group, int expert) const {
  check(layer >= 0 && layer < shape_.layers && group >= 0 && group < shape_.groups && expert >= 0 &&
            expert < shape_.experts,
        "no such expert in the placement");
  return (static_cast<std::size_t>(layer) * static_cast<std::size_t>(shape_.groups) +
          static_cast<std::size_t>(group)) *
             static_cast<std::size_t>(shape_.experts) +
         static_cast<std::size_t>(expert);
}

std::size_t Placement::slots_index(int layer, int group, int rank) const {
  check(layer >= 0 && layer < shape_.layers && group >= 0 && group < shape_.groups && rank >= 0 &&
            rank < shape_.ranks,
        "no such rank in the placement");
  return (static_cast<std::size_t>(layer) * static_cast<std::size_t>(shape_.groups) +
          static_cast<std::size_t>(group)) *
             static_cast<std::size_t>(shape_.ranks) +
         static_cast<std::size_t>(rank);
}

}  // namespace cartesian
