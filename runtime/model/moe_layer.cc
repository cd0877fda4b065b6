#include "runtime/model/moe_layer.h"

#include <algorithm>

#include "kernels/embedding.h"
#include "runtime/model/chunks.h"

namespace cartesian {

namespace {

/// Of a chunk of this rank's tokens.
std::vector<SourceToken> home_tokens(const MoeLayer::Input& input, int rank, std::size_t index,
                                     std::size_t count) {
  const std::int64_t first = chunk_bound(input.x.rows(), index, count);
  std::vector<SourceToken> tokens;
  for (std::int64_t row = first; row < chunk_bound(input.x.rows(), index + 1, count); ++row) {
    tokens.push_back({.token = static_cast<std::int32_t>(input.first_token + row),
                      .home = rank,
                      .tag = input.ids.defined() ? input.ids.data<std::int32_t>()[row] : 0});
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

struct MoeLayer::Passing {
  std::vector<SourceToken> home_tokens;
  std::vector<SourceToken> pivot_tokens;
  Tensor speculative;     ///< what B is expected to choose; may be undefined
  SubLayer::Input input;  ///< of the sub-layer that it is in
  Tensor output;          ///< likewise
  TransferPtr report;     ///< of B's choices, for the observer
};

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
  const bool expects = sub_layers_.size() == 2 &&
                       (rank.exchange.wants_expected() || (rank.speculate && rank.on_route));
  saved.chunks.resize(sub_layers_.size());
  for (Chunks& chunks : saved.chunks) {
    chunks.resize(count);
  }
  std::vector<Passing> passing(count);
  for (std::size_t c = 0; c < count; ++c) {
    Passing& p = passing[c];
    p.home_tokens = home_tokens(input, rank.exchange.rank(), c, count);
    p.input = {.x = chunk_rows(input.x, c, count),
               .hash_logits = hash_logits(rank, input.hash_table, p.home_tokens),
               .tokens = p.home_tokens,
               .expected = {},
               .first_home_token = p.home_tokens.empty() ? 0 : p.home_tokens.front().token,
               .home_tokens = static_cast<std::int64_t>(p.home_tokens.size())};
    if (expects) {
      p.speculative = sub_layers_[1].speculate(rank, p.input);
    }
  }
  pipeline(SubLayer::kStages * sub_layers_.size(), count, [&](std::size_t stage, std::size_t c) {
    const std::size_t s = stage / SubLayer::kStages;
    const SubLayer& sub_layer = sub_layers_[s];
    SubLayer::Chunk& chunk = saved.chunks[s][c];
    Passing& p = passing[c];
    const bool last = s + 1 == sub_layers_.size();
    switch (stage % SubLayer::kStages) {
      case 0:
        p.input.expected = last ? Tensor() : p.speculative;
        return route(rank, s, chunk, saved.chunks[0][c].plan, p, loads[s]);
      case 1:
        return sub_layer.send(rank, chunk);
      case 2:
        return sub_layer.hand_out(rank, chunk);
      case 3:
        p.output = last ? chunk_rows(out, c, count)
                        : rank.activations.tensor(rank.dtype, {chunk.plan.targets, out.cols()});
        return sub_layer.compute(rank, chunk, p.output);
      case 4:
        return sub_layer.collect(rank, chunk);
      default:
        sub_layer.gather(rank, chunk, p.output);
        p.input.x = p.output;
        if (chunk.plan.to_pivots) {
          p.pivot_tokens = pivot_tokens(chunk.plan);
          p.input.tokens = p.pivot_tokens;
          p.input.hash_logits = hash_logits(rank, input.hash_table, p.pivot_tokens);
        }
        if (last && rank.on_route) {
          observe(rank, saved, c, p);
        }
    }
  });
}

void MoeLayer::route(RankContext& rank, std::size_t sub_layer, SubLayer::Chunk& chunk,
                     const ExchangePlan& a, Passing& passing, RouterLoad& load) const {
  sub_layers_[sub_layer].route(rank, passing.input, chunk, load);
  if (sub_layer == 1 && a.to_pivots && rank.on_route) {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
    passing.report = rank.exchange.begin_report(a, {chunk.router.experts, chunk.router.gates});
  }
}

void MoeLayer::observe(RankContext& rank, const Saved& saved, std::size_t c,
                       Passing& passing) const {
  std::vector<Choices> choices;
  for (const Chunks& chunks : saved.chunks) {
    choices.push_back({chunks[c].router.experts, chunks[c].router.gates});
  }
  const ExchangePlan& a = saved.chunks[0][c].plan;
  std::vector<std::int32_t> pivots(passing.home_tokens.size(), rank.exchange.rank());
  if (passing.report != nullptr) {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
    choices[1] = rank.exchange.finish_report(rank.activations, a, std::move(passing.report));
    std::transform(a.rails.begin(), a.rails.begin() + std::ssize(pivots), pivots.begin(),
                   [](const RailToken& rail) { return rail.target; });
  }
  const SubLayerPosition& position = sub_layers_[0].position();
  rank.on_route({.block = position.block,
                 .layer = position.layer,
                 .tokens = passing.home_tokens,
                 .choices = choices,
                 .speculative = passing.speculative,
                 .pivots = pivots});
}

void MoeLayer::backward(RankContext& rank, Saved& saved, std::span<const Tensor> dprobability,
                        const Tensor& dx) const {
  const std::size_t count = saved.chunks.front().size();
  std::vector<Tensor> gradients(count);  // of the output of the sub-layer that a chunk is in
  for (std::size_t c = 0; c < count; ++c) {
    gradients[c] = chunk_rows(dx, c, count);
  }
  constexpr std::size_t kStages = SubLayer::kGradientStages;
  pipeline(kStages * sub_layers_.size(), count, [&](std::size_t stage, std::size_t c) {
    const std::size_t s = sub_layers_.size() - 1 - stage / kStages;
    const SubLayer& sub_layer = sub_layers_[s];
    SubLayer::Chunk& chunk = saved.chunks[s][c];
    switch (stage % kStages) {
      case 0:
        return sub_layer.scatter_gradients(rank, chunk, gradients[c]);
      case 1:
        return sub_layer.hand_out_gradients(rank, chunk);
      case 2:
        return sub_layer.compute_gradients(rank, chunk);
      case 3:
        return sub_layer.collect_gradients(rank, chunk);
      default:
        // B's sources may be other ranks' tokens; A's are this rank's, and so is the result.
        const bool away = s > 0 && chunk.plan.finds_targets;
        const Tensor dinput =
            away ? rank.activations.tensor(rank.dtype, chunk.h.shape()) : chunk_rows(dx, c, count);
        sub_layer.gather_gradients(rank, chunk, dprobability[s], dinput);
        gradients[c] = dinput;
    }
  });
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
