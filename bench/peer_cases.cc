#include "bench/peer_cases.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/file_system.h"
#include "base/random.h"
#include "planner/synthetic_trace.h"

namespace cartesian::bench {

namespace {

constexpr double kPrediction = 0.9;     // measured on small trained models: 84 to 91% are right
constexpr std::int64_t kTokens = 8192;  // planned on
constexpr std::int64_t kHeldOut = 16384;
constexpr int kManyExperts = 128;  // from here on tokens choose eight of them

struct Structure {
  const char* name;
  double cluster;  ///< experts of a topic, as a share of all
  double strength;
  double skew;
  double drift;
  bool ragged;
};

// A drift goes on within a trace, and the held-out trace has it too.
constexpr Structure kStructures[] = {
    {"small strong", 1.0 / 8, 0.8, 0.3, 0, false},
    {"large", 1.0 / 4, 0.6, 0.5, 0, false},
    {"odd ragged", 3.0 / 16, 0.7, 0.2, 0.3, true},
    {"weak skewed", 1.0 / 4, 0.3, 0.7, 0, false},
};

void rename(std::vector<std::int16_t>& ids, std::uint64_t key, std::int64_t experts) {
  for (std::int16_t& id : ids) {
    if (id >= 0) {
      id = static_cast<std::int16_t>(
          random_permute(key, static_cast<std::uint64_t>(id), static_cast<std::uint64_t>(experts)));
    }
  }
}

void rename_experts(RoutingTrace& trace, std::uint64_t seed) {
  for (RoutingTrace::SubLayer& sub_layer : trace.sub_layers) {
    const std::uint64_t key =
        random_key(seed, sub_layer.group == 0 ? "names of A's experts" : "names of B's experts");
    rename(sub_layer.ids, key, trace.experts);
    rename(sub_layer.speculative_ids, key, trace.experts);
  }
}

PeerCase synthetic_case(const Structure& structure, int experts, int seed) {
  SyntheticTraceSpec spec{.experts = experts,
                          .choices = experts >= kManyExperts ? 8 : 2,
                          .tokens = kTokens,
                          .cluster = static_cast<int>(structure.cluster * experts),
                          .strength = structure.strength,
                          .skew = structure.skew,
                          .drift = structure.drift,
                          .ragged = structure.ragged,
                          .prediction = kPrediction};
  const auto key = static_cast<std::uint64_t>(seed);
  PeerCase made{.name = fmt::format("{} {}", structure.name, seed),
                .planned_on = make_synthetic_trace(spec, 2 * key),
                .held_out = {}};
  spec.tokens = kHeldOut;
  made.held_out = make_synthetic_trace(spec, 2 * key + 1);
  rename_experts(made.planned_on, key);
  rename_experts(made.held_out, key);
  return made;
}

/// Its sub-layers `first` and the next.
RoutingTrace one_layer(const RoutingTrace& trace, std::size_t first) {
  RoutingTrace layer = trace;
  const auto from = trace.sub_layers.begin() + static_cast<std::ptrdiff_t>(first);
  layer.sub_layers.assign(from, from + 2);
  return layer;
}

}  // namespace

std::vector<PeerCase> synthetic_cases(int experts, int seeds) {
  std::vector<PeerCase> cases;
  for (const Structure& structure : kStructures) {
    for (int seed = 1; seed <= seeds; ++seed) {
      cases.push_back(synthetic_case(structure, experts, seed));
    }
  }
  return cases;
}

std::vector<PeerCase> file_cases(const std::string& planned_on, const std::string& held_out) {
  const auto files = make_posix_file_system();
  const RoutingTrace plan = load_routing_trace(*files, planned_on);
  const RoutingTrace eval = load_routing_trace(*files, held_out);
  const std::size_t count = plan.sub_layers.size();
  bool same = plan.experts == eval.experts && count == eval.sub_layers.size() && count % 2 == 0;
  for (std::size_t i = 0; same && i < count; ++i) {
    same = plan.sub_layers[i].block == eval.sub_layers[i].block &&
           plan.sub_layers[i].group == static_cast<int>(i % 2) &&
           eval.sub_layers[i].group == static_cast<int>(i % 2);
  }
  if (!same) {
    throw ConfigError(fmt::format("{} and {} are not traces of the same layers of A and B",
                                  planned_on, held_out));
  }
  std::vector<PeerCase> cases;
  for (std::size_t i = 0; i < count; i += 2) {
    cases.push_back({.name = fmt::format("block {}", plan.sub_layers[i].block),
                     .planned_on = one_layer(plan, i),
                     .held_out = one_layer(eval, i)});
  }
  return cases;
}

}  // namespace cartesian::bench
