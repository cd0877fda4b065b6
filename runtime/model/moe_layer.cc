#include "runtime/model/moe_layer.h"

#include <algorithm>

#include "kernels/embedding.h"

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

/// Of each chunk of this rank's tokens.
std::vector<std::vector<SourceToken>> home_tokens(const MoeLayer::Input& input, int rank,
                                                  std::size_t chunks) {
  std::vector<std::vector<SourceToken>> tokens(chunks);
  std::int64_t row = 0;
  for (std::size_t c = 0; c < chunks; ++c) {
    const std::int64_t count = chunk_rows(input.x, c, chunks).rows();
    for (const std::int64_t end = row + count; row < end; ++row) {
      tokens[c].push_back({.token = static_cast<std::int32_t>(input.first_token + row),
                           .home = rank,
                           .tag = input.ids.defined() ? input.ids.data<std::int32_t>()[row] : 0});
    }
  }
  return tokens;
}

/// The tokens whose pivot this rank is.
std::vector<SourceToken> pivot_tokens(const ExchangePlan& plan) {
  std::vector<SourceToken> tokens;
  for (const std::int32_t rail : plan.target_rails) {
    tokens.push_back(plan.rails[static_cast<std::size_t>(rail)].source);
  }
  return tokens;
}

/// Routing by hash: a fixed row for every token of the vocabulary.
Tensor hash_logits(RankContext& rank, const Tensor& table, std::span<const SourceToken> tokens) {
  if (!table.defined()) {
    return {};
  }
  const auto count = static_cast<std::int64_t>(tokens.size());
  const Tensor logits = rank.activations.tensor(DType::f32, {count, table.cols()});
  const ArenaScope scope(rank.op.scratch);
  const Tensor ids = rank.op.scratch.tensor(DType::i32, {count});
  std::ranges::transform(tokens, ids.data<std::int32_t>(), &SourceToken::tag);
  embedding_forward(rank.op, ids, table, logits);
  return logits;
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
  const auto count = static_cast<std::size_t>(rank.chunks);
  const auto homes = home_tokens(input, rank.exchange.rank(), count);
  saved.chunks.resize(sub_layers_.size());
  std::vector<SubLayer::Input> inputs(count);
  for (std::size_t c = 0; c < count; ++c) {
    inputs[c] = {.x = chunk_rows(input.x, c, count),
                 .hash_logits = hash_logits(rank, input.hash_table, homes[c]),
                 .tokens = homes[c],
                 .first_home_token = homes[c].empty() ? 0 : homes[c].front().token,
                 .home_tokens = static_cast<std::int64_t>(homes[c].size())};
  }
  std::vector<Tensor> speculative(count);
  if (sub_layers_.size() == 2 &&
      (rank.exchange.wants_expected() || (rank.speculate && rank.on_route))) {
    for (std::size_t c = 0; c < count; ++c) {
      speculative[c] = sub_layers_[1].speculate(rank, inputs[c]);
    }
  }
  std::vector<std::vector<SourceToken>> tokens(count);
  for (std::size_t s = 0; s < sub_layers_.size(); ++s) {
    const SubLayer& sub_layer = sub_layers_[s];
    const bool last = s + 1 == sub_layers_.size();
    Chunks& chunks = saved.chunks[s];
    chunks.resize(count);
    for (std::size_t c = 0; c < count; ++c) {
      inputs[c].expected = last ? Tensor() : speculative[c];
      sub_layer.route(rank, inputs[c], chunks[c], loads[s]);
    }
    for (SubLayer::Chunk& chunk : chunks) {
      sub_layer.send(rank, chunk);
    }
    for (SubLayer::Chunk& chunk : chunks) {
      sub_layer.hand_out(rank, chunk);
    }
    std::vector<Tensor> results(count);
    for (std::size_t c = 0; c < count; ++c) {
      results[c] = last ? chunk_rows(out, c, count)
                        : rank.activations.tensor(rank.dtype, {chunks[c].plan.targets, out.cols()});
      sub_layer.compute(rank, chunks[c], results[c]);
      if (rank.on_route) {
        observe(rank, saved, s, c, {.tokens = homes[c], .speculative = speculative[c]});
      }
    }
    for (SubLayer::Chunk& chunk : chunks) {
      sub_layer.collect(rank, chunk);
    }
    for (std::size_t c = 0; c < count; ++c) {
      sub_layer.gather(rank, chunks[c], results[c]);
    }
    for (std::size_t c = 0; c < count && !last; ++c) {
      inputs[c].x = results[c];
      if (chunks[c].plan.to_pivots) {
        tokens[c] = pivot_tokens(chunks[c].plan);
        inputs[c].tokens = tokens[c];
        inputs[c].hash_logits = hash_logits(rank, input.hash_table, tokens[c]);
      }
    }
  }
}

void MoeLayer::observe(RankContext& rank, const Saved& saved, std::size_t sub_layer, std::size_t c,
                       const Observed& observed) const {
  const SubLayer::Chunk& chunk = saved.chunks[sub_layer][c];
  const SubLayerPosition& position = sub_layers_[sub_layer].position();
  Choices choices{chunk.router.experts, chunk.router.gates};
  if (sub_layer == 1 && saved.chunks[0][c].plan.to_pivots) {
    choices = rank.exchange.report(rank.activations, saved.chunks[0][c].plan, choices);
  }
  rank.on_route({.block = position.block,
                 .layer = position.layer,
                 .group = position.group,
                 .tokens = observed.tokens,
                 .experts = choices.experts,
                 .gates = choices.gates,
                 .speculative = sub_layer == 1 ? observed.speculative : Tensor()});
}

void MoeLayer::backward(RankContext& rank, Saved& saved, std::span<const Tensor> dprobability,
                        const Tensor& dx) const {
  const std::size_t count = saved.chunks.front().size();
  std::vector<Tensor> doutputs(count);
  for (std::size_t c = 0; c < count; ++c) {
    doutputs[c] = chunk_rows(dx, c, count);
  }
  for (std::size_t s = sub_layers_.size(); s-- > 0;) {
    const SubLayer& sub_layer = sub_layers_[s];
    Chunks& chunks = saved.chunks[s];
    for (std::size_t c = 0; c < count; ++c) {
      sub_layer.scatter_gradients(rank, chunks[c], doutputs[c]);
    }
    for (SubLayer::Chunk& chunk : chunks) {
      sub_layer.hand_out_gradients(rank, chunk);
    }
    for (SubLayer::Chunk& chunk : chunks) {
      sub_layer.compute_gradients(rank, chunk);
    }
    for (SubLayer::Chunk& chunk : chunks) {
      sub_layer.collect_gradients(rank, chunk);
    }
    for (std::size_t c = 0; c < count; ++c) {
      // B's sources may be other ranks' tokens; A's are this rank's, and so is the result.
      const bool away = s > 0 && chunks[c].plan.finds_targets;
      const Tensor dinput = away ? rank.activations.tensor(rank.dtype, chunks[c].h.shape())
                                 : chunk_rows(dx, c, count);
      sub_layer.gather_gradients(rank, chunks[c], dprobability[s], dinput);
      doutputs[c] = dinput;
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
