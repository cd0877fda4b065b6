#include "runtime/model/moe_layer.h"

#include <algorithm>

namespace cartesian {

namespace {

/// Rows of chunk `index` of `count`: as even as can be, some perhaps empty. Undefined if `rows` is.
Tensor chunk_rows(const Tensor& rows, std::size_t index, std::size_t count) {
  if (!rows.defined()) {
    return rows;
  }
  const auto bound = [&](std::size_t i) {
    return rows.rows() * static_cast<std::int64_t>(i) / static_cast<std::int64_t>(count);
  };
  return rows.slice(bound(index), bound(index + 1) - bound(index));
}

}  // namespace

MoeLayer::MoeLayer(ParameterStore& store, const ModelConfig& config, int block, int layer) {
  sub_layers_.reserve(static_cast<std::size_t>(config.sub_layers));
  for (int group = 0; group < config.sub_layers; ++group) {
    sub_layers_.emplace_back(store, config, SubLayerPosition{block, layer, group});
  }
}

void MoeLayer::add_experts(const Placement& placement, int rank) {
  for (SubLayer& sub_layer : sub_layers_) {
    sub_layer.add_experts(placement, rank);
  }
}

void MoeLayer::pack(const Context& context, DType dtype) {
  for (SubLayer& sub_layer : sub_layers_) {
    sub_layer.pack(context, dtype);
  }
}

void MoeLayer::forward(RankContext& rank, const Input& input, const Tensor& out, Saved& saved,
                       std::span<RouterLoad> loads) const {
  const Tensor& x = input.x;
  const auto count = static_cast<std::size_t>(rank.chunks);
  saved.chunks.resize(sub_layers_.size());
  Tensor in = x;
  for (std::size_t s = 0; s < sub_layers_.size(); ++s) {
    const SubLayer& sub_layer = sub_layers_[s];
    const bool last = s + 1 == sub_layers_.size();
    const Tensor result = last ? out : rank.activations.tensor(x.dtype(), x.shape());
    std::vector<SubLayer::Chunk>& chunks = saved.chunks[s];
    chunks.resize(count);
    for (std::size_t c = 0; c < count; ++c) {
      chunks[c].first_token = input.first_token + x.rows() * static_cast<std::int64_t>(c) /
                                                      static_cast<std::int64_t>(count);
      SubLayer::Input tokens{.x = chunk_rows(x, c, count),
                             .hash_logits = chunk_rows(input.hash_logits, c, count),
                             .speculative = {}};
      if (rank.speculate && rank.on_route && s > 0) {
        tokens.speculative = sub_layer.speculate(rank, tokens);
      }
      tokens.x = chunk_rows(in, c, count);
      sub_layer.route(rank, tokens, chunks[c], loads[s]);
    }
    for (SubLayer::Chunk& chunk : chunks) {
      sub_layer.send(rank, chunk);
    }
    for (std::size_t c = 0; c < count; ++c) {
      sub_layer.compute(rank, chunks[c], chunk_rows(result, c, count));
    }
    for (std::size_t c = 0; c < count; ++c) {
      sub_layer.gather(rank, chunks[c], chunk_rows(result, c, count));
    }
    in = result;
  }
}

void MoeLayer::backward(RankContext& rank, Saved& saved, std::span<const Tensor> dprobability,
                        const Tensor& dx) const {
  for (std::size_t s = sub_layers_.size(); s-- > 0;) {
    const SubLayer& sub_layer = sub_layers_[s];
    std::vector<SubLayer::Chunk>& chunks = saved.chunks[s];
    const std::size_t count = chunks.size();
    for (std::size_t c = 0; c < count; ++c) {
      sub_layer.scatter_gradients(rank, chunks[c], chunk_rows(dx, c, count));
    }
    for (SubLayer::Chunk& chunk : chunks) {
      sub_layer.compute_gradients(rank, chunk);
    }
    for (std::size_t c = 0; c < count; ++c) {
      sub_layer.gather_gradients(rank, chunks[c], dprobability[s], chunk_rows(dx, c, count));
    }
  }
}

float MoeLayer::move_biases(std::span<const RouterLoad> loads,
                            std::span<const double> rates) const {
  float largest = 0;
  for (std::size_t s = 0; s < sub_layers_.size(); ++s) {
    largest = std::max(largest, sub_layers_[s].move_bias(loads[s], rates[s]));
  }
  return largest;
}

}  // namespace cartesian
