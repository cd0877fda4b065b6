#include "planner/cluster.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/index.h"
#include "base/suggest.h"

namespace cartesian {

namespace {

constexpr double kGiga = 1e9;
constexpr double kMicro = 1e-6;
constexpr double kTera = 1e12;
constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr std::int64_t kMostRanks = 1 << 20;

class ClusterReader {
 public:
  ClusterReader(const toml::table& root, std::string source)
      : root_(root), source_(std::move(source)) {}

  Cluster read() const {
    check_keys(root_, "",
               {"nodes", "ranks_per_node", "node_sizes", "memory_gib", "tflops", "rank_speeds",
                "card_speeds", "intra", "inter"});
    Cluster cluster = uniform_cluster(1, 1);
    const std::vector<int> sizes = node_sizes();
    cluster.topology = Topology::from_node_sizes(sizes, std::reduce(sizes.begin(), sizes.end()));
    cluster.memory_bytes = number(root_, "memory_gib", 0, kGiB, cluster.memory_bytes);
    cluster.flops = number(root_, "tflops", kTiny, kTera, cluster.flops);
    cluster.intra = link("intra", cluster.intra);
    cluster.inter = link("inter", cluster.inter);
    cluster.rank_speeds = speeds("rank_speeds", "rank", cluster.topology.ranks());
    cluster.card_speeds = speeds("card_speeds", "node", cluster.topology.nodes());
    return cluster;
  }

 private:
  static constexpr double kTiny = 1e-9;
  static constexpr double kHuge = 1e12;

  [[noreturn]] void fail(const std::string& what) const {
    throw FormatError(fmt::format("{}: {}", source_, what));
  }

  void check_keys(const toml::table& table, const std::string& prefix,
                  std::initializer_list<std::string_view> known) const {
    for (const auto& [key, node] : table) {
      if (std::find(known.begin(), known.end(), key.str()) == known.end()) {
        fail(fmt::format("unknown key {}{}{}", prefix, key.str(), did_you_mean(key.str(), known)));
      }
    }
  }

  std::vector<int> node_sizes() const {
    if (const toml::node* sizes = root_.get("node_sizes")) {
      if (root_.contains("nodes") || root_.contains("ranks_per_node")) {
        fail("node_sizes says what nodes and ranks_per_node say: give one or the other");
      }
      const toml::array* array = sizes->as_array();
      if (array == nullptr || array->empty()) {
        fail("node_sizes must be an array of ranks on each node");
      }
      std::vector<int> result;
      std::int64_t ranks = 0;
      for (const toml::node& size : *array) {
        result.push_back(static_cast<int>(checked(&size, "a size in node_sizes")));
        ranks += result.back();
      }
      if (ranks > kMostRanks) {
        fail(fmt::format("node_sizes: {} ranks are more than {}", ranks, kMostRanks));
      }
      return result;
    }
    const std::int64_t nodes = checked(root_.get("nodes"), "nodes");
    const std::int64_t ranks = root_.contains("ranks_per_node")
                                   ? checked(root_.get("ranks_per_node"), "ranks_per_node")
                                   : 1;
    if (nodes * ranks > kMostRanks) {
      fail(fmt::format("{} nodes of {} ranks are more than {} ranks", nodes, ranks, kMostRanks));
    }
    return std::vector<int>(static_cast<std::size_t>(nodes), static_cast<int>(ranks));
  }

  std::int64_t checked(const toml::node* node, const std::string& what) const {
    if (node == nullptr) {
      fail(fmt::format(
          "{} is missing: nodes and ranks_per_node, or node_sizes, say how many ranks there are",
          what));
    }
    const auto value = node->value<std::int64_t>();
    if (!node->is_integer() || *value < 1 || *value > kMostRanks) {
      fail(fmt::format("{} must be an integer within [1, {}]", what, kMostRanks));
    }
    return *value;
  }

  /// In units of `unit`, and the result without.
  double number(const toml::table& table, const std::string& key, double least, double unit,
                double unless_given) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) {
      return unless_given;
    }
    const auto value = node->value<double>();
    if (!node->is_number() || !value || !(*value >= least) || *value > kHuge) {
      fail(fmt::format("{} must be a number {}, and at most {}", key,
                       least > 0 ? "above 0" : "of at least 0", kHuge));
    }
    return *value * unit;
  }

  std::vector<double> speeds(const std::string& key, std::string_view unit, int units) const {
    const toml::node* node = root_.get(key);
    if (node == nullptr) {
      return {};
    }
    std::vector<double> result;
    if (const toml::array* array = node->as_array()) {
      for (const toml::node& speed : *array) {
        result.push_back(speed.is_number() ? speed.value<double>().value_or(0) : 0);
      }
    }
    if (result.size() != static_cast<std::size_t>(units) ||
        !std::ranges::all_of(result, [](double speed) { return speed >= kTiny && speed <= 1; })) {
      fail(fmt::format("{} must be an array of {} numbers, one for each {}, above 0 and at most 1",
                       key, units, unit));
    }
    return result;
  }

  LinkClass link(const std::string& name, const LinkClass& unless_given) const {
    const toml::node* node = root_.get(name);
    if (node == nullptr) {
      return unless_given;
    }
    const toml::table* table = node->as_table();
    if (table == nullptr) {
      fail(fmt::format("{} must be a table with bandwidth_gb_s and latency_us", name));
    }
    check_keys(*table, name + ".", {"bandwidth_gb_s", "latency_us"});
    return {.bytes_per_s = number(*table, "bandwidth_gb_s", kTiny, kGiga, unless_given.bytes_per_s),
            .latency_s = number(*table, "latency_us", 0, kMicro, unless_given.latency_s)};
  }

  const toml::table& root_;
  std::string source_;
};

}  // namespace

double Cluster::rank_flops(int rank) const {
  return rank_speeds.empty() ? flops : flops * rank_speeds[as_index(rank)];
}

double Cluster::card_bytes_per_s(int node) const {
  return card_speeds.empty() ? inter.bytes_per_s : inter.bytes_per_s * card_speeds[as_index(node)];
}

double Cluster::cards_s(std::span<const double> bytes) const {
  if (card_speeds.empty()) {
    return *std::ranges::max_element(bytes) / inter.bytes_per_s;
  }
  double most = 0;
  for (std::size_t node = 0; node < bytes.size(); ++node) {
    most = std::max(most, bytes[node] / card_bytes_per_s(static_cast<int>(node)));
  }
  return most;
}

std::vector<double> load_shares(const Cluster& cluster) {
  std::vector<double> shares = cluster.rank_speeds;
  if (std::ranges::adjacent_find(shares, std::ranges::not_equal_to()) == shares.end()) {
    return {};
  }
  const double mean =
      std::reduce(shares.begin(), shares.end()) / static_cast<double>(shares.size());
  std::ranges::transform(shares, shares.begin(), [&](double share) { return share / mean; });
  return shares;
}

Cluster uniform_cluster(int nodes, int ranks_per_node) {
  return {.topology = Topology::from_node_sizes(
              std::vector<int>(static_cast<std::size_t>(nodes), ranks_per_node),
              nodes * ranks_per_node),
          .intra = {.bytes_per_s = 300 * kGiga, .latency_s = 5 * kMicro},
          .inter = {.bytes_per_s = 50 * kGiga, .latency_s = 15 * kMicro},
          .memory_bytes = 0,
          .flops = 300 * kTera};
}

Cluster load_cluster(FileSystem& files, const Path& path) {
  try {
    const toml::table root = toml::parse(files.read(path));
    return ClusterReader(root, path.string()).read();
  } catch (const toml::parse_error& error) {
    throw FormatError(
        fmt::format("{}:{}: {}", path.string(), error.source().begin.line, error.description()));
  }
}

}  // namespace cartesian
