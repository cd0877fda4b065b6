#pragma once
// How a training run is spread over ranks, and what it trains: the cases of world_size_test.cc.

#include <algorithm>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

#include "tests/support/tiny_training.h"

namespace cartesian::test {

struct Case {
  std::string name;
  int ranks = 1;
  std::int64_t experts = 4;
  std::int64_t batch_sequences = 8;
  std::int64_t micro_batches = 1;
  std::vector<std::int64_t> node_sizes = {};
  std::string placement = "linear";  ///< "file": hot_replicas()
  std::int64_t expert_ranks = 0;
  int chunks = 1;
  bool twice = false;       ///< run again: the same bits
  bool one_expert = false;  ///< every token to expert 0 of every sub-layer
  std::int64_t sub_layers = 2;
  std::string routing = "top_k";
  std::int64_t grain_level = 2;
  bool documents = false;  ///< attention stops at document boundaries
  double z_loss = 0;
  double balance_bias = 0;
  double jitter = 0;
  bool recompute = false;        ///< on many ranks
  bool shard_optimizer = false;  ///< on many ranks
  ExchangeOptions exchange = {};
};

inline void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

/// Experts with several replicas, unevenly: expert e of sub-layer s on ranks that both decide.
inline Placement hot_replicas(const PlacementShape& shape) {
  std::vector<std::vector<int>> replicas;
  const int count = shape.layers * shape.groups * shape.experts;
  for (int i = 0; i < count; ++i) {
    const int first = (i * 7 + i / shape.experts) % shape.ranks;
    std::vector<int> ranks = {first};
    if (i % 3 != 0) {
      ranks.push_back((first + 1) % shape.ranks);
    }
    if (i % 4 == 1) {
      ranks.resize(static_cast<std::size_t>(shape.ranks));
      std::iota(ranks.begin(), ranks.end(), 0);
    }
    std::ranges::sort(ranks);
    replicas.push_back(ranks);
  }
  return {shape, replicas};
}

/// Makes expert 0 win for every token: the first component of the residual stream is large. By a
/// margin that leaves the router a gradient, see is_steady().
inline void send_all_to_expert_0(ParameterStore& store) {
  for (const NamedTensor& tensor : store.tensors()) {
    const auto values = store.weights().subspan(static_cast<std::size_t>(tensor.offset),
                                                static_cast<std::size_t>(tensor.shape.numel()));
    if (tensor.name == "model.embed_tokens.weight") {
      const auto hidden = static_cast<std::size_t>(tensor.shape[1]);
      for (std::size_t i = 0; i < values.size(); i += hidden) {
        values[i] = 20;
      }
    } else if (tensor.name.find(".wg") != std::string::npos) {
      values[0] = 2;
    } else if (tensor.name.ends_with("layernorm.weight")) {
      values[0] = 1;
    }
  }
}

inline TrainingSetup setup_of(const Case& c, std::uint64_t seed) {
  TrainingSetup setup;
  setup.model.num_hidden_layers = 3;  // MoE, dense, MoE
  setup.model.num_experts = c.experts;
  setup.model.sub_layers = c.sub_layers;
  setup.model.routing = c.routing;
  setup.model.grain_level = c.grain_level;
  setup.model.document_attention = c.documents;
  setup.model.router_bias = c.balance_bias > 0;
  setup.train = tiny_train();
  setup.train.eps = 1e-5;  // else where gradients vanish AdamW makes whole steps of their rounding
  setup.train.z_loss = c.z_loss;
  setup.train.balance_bias = c.balance_bias;
  setup.train.router_jitter = c.jitter;
  setup.train.batch_sequences = c.batch_sequences;
  setup.train.micro_batch_sequences = c.batch_sequences / c.micro_batches;
  setup.weight_seed = seed;
  if (c.one_expert) {
    setup.model.moe_top_k = 1;
    setup.adjust_weights = send_all_to_expert_0;
  }
  return setup;
}

}  // namespace cartesian::test
