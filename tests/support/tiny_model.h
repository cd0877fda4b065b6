#pragma once
// Models small enough to be followed in float64, their weights, and a local rank to run them on.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/random.h"
#include "runtime/model/model_rank.h"
#include "tests/support/reference_model.h"

namespace cartesian::test {

inline ModelConfig tiny_model() {
  return {.vocab_size = 13,
          .hidden_size = 8,
          .intermediate_size = 12,
          .num_hidden_layers = 2,
          .num_attention_heads = 2,
          .max_position_embeddings = 6,
          .num_experts = 4};
}

inline PlacementShape placement_shape(const ModelConfig& config, int ranks) {
  return {.layers = static_cast<int>(config.moe_layers()),
          .groups = static_cast<int>(config.sub_layers),
          .experts = static_cast<int>(config.num_experts),
          .ranks = ranks};
}

/// This many ids below `vocabulary`.
inline std::vector<std::int32_t> random_ids(std::uint64_t key, std::int64_t count,
                                            std::int64_t vocabulary) {
  std::vector<std::int32_t> ids;
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(count); ++i) {
    ids.push_back(
        static_cast<std::int32_t>(random_bits(key, i) % static_cast<std::uint64_t>(vocabulary)));
  }
  return ids;
}

/// Weights with which every part of the model matters: outputs of order one, norms and biases off
/// their starting points. Keyed by (seed, name): independent of ranks and placement.
inline void randomize_weights(ParameterStore& store, std::uint64_t seed) {
  for (const NamedTensor& tensor : store.tensors()) {
    const std::uint64_t key = random_key(seed, tensor.name);
    const bool matrix = tensor.shape.rank() == 2;
    const double scale =
        matrix ? 1 / std::sqrt(static_cast<double>(tensor.shape[tensor.shape.rank() - 1])) : 0.3;
    const auto values = store.weights().subspan(static_cast<std::size_t>(tensor.offset),
                                                static_cast<std::size_t>(tensor.shape.numel()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(tensor.init_value + scale * random_normal(key, i));
    }
  }
}

/// One of a store's flat arrays by tensor name.
inline ReferenceWeights<double> by_name(const ParameterStore& store, std::span<const float> array) {
  ReferenceWeights<double> result;
  for (const NamedTensor& tensor : store.tensors()) {
    const auto values = array.subspan(static_cast<std::size_t>(tensor.offset),
                                      static_cast<std::size_t>(tensor.shape.numel()));
    result[tensor.name] = {values.begin(), values.end()};
  }
  return result;
}

/// |actual - expected| / |expected| over a tensor; |actual| if nothing is expected.
inline double norm_relative_error(const std::vector<double>& actual,
                                  const std::vector<double>& expected) {
  double difference = 0;
  double size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  return std::sqrt(difference) / (size > 0 ? std::sqrt(size) : 1);
}

}  // namespace cartesian::test
