#include "runtime/model/sub_layer.h"

#include <fmt/format.h>

#include <array>

#include "base/random.h"
#include "kernels/elementwise.h"

namespace cartesian {

namespace {

/// Tensor names of the authors' published model (docs/formats.md).
struct Names {
  std::string norm;
  Router::Names router;
  std::string shared;
  std::string experts;
};

Names names_of(const ModelConfig& config, const SubLayerPosition& position) {
  const std::string block = fmt::format("model.layers.{}.", position.block);
  // A conventional MoE layer has no numbers in its names; a Cartesian one has 0 for A and 1 for B.
  const std::string group = config.sub_layers == 1 ? "" : std::to_string(position.group);
  return {.norm = block + (position.group == 0 ? "post_attention_layernorm" : "mlp_layernorm") +
                  ".weight",
          .router = {.router = block + "wg" + group,
                     .mix = block + "coefficient" + group,
                     .expert_bias = block + "expert_bias" + group},
          .shared = block + "res_mlp" + group + ".",
          .experts = block + "mlp" + group + "."};
}

std::array<std::int64_t, 2> one_group(std::int64_t rows) { return {0, rows}; }

}  // namespace

SubLayer::SubLayer(ParameterStore& store, const ModelConfig& config, SubLayerPosition position)
    : store_(store),
      config_(config),
      position_(position),
      norm_(store, names_of(config, position).norm, config.hidden_size, config.rms_norm_eps),
      router_(store, config, names_of(config, position).router) {
  const std::string prefix = names_of(config, position).shared;
  for (std::int64_t i = 0; i < config.shared_ffns(); ++i) {
    shared_.emplace_back(store, config.fine_grained() ? fmt::format("{}mlp{}.", prefix, i) : prefix,
                         config.hidden_size, config.expert_width(), config.initializer_range,
                         residual_init_std(config));
  }
  shared_weights_.resize(shared_.size());
}

void SubLayer::add_experts(const Placement& placement, int rank) {
  const auto [block, layer, group] = position_;
  const std::string prefix = names_of(config_, position_).experts;
  for (const int expert : placement.experts_on(layer, group, rank)) {
    store_.begin_expert(layer, group, expert, placement.replicas(layer, group, expert));
    experts_.emplace_back(store_, fmt::format("{}{}.", prefix, expert), config_.hidden_size,
                          config_.expert_width(), config_.initializer_range,
                          residual_init_std(config_));
    store_.end_expert();
  }
  expert_weights_.resize(experts_.size());
}

void SubLayer::pack(const Context& context, DType dtype) {
  router_.pack(context);
  for (std::size_t i = 0; i < shared_.size(); ++i) {
    shared_[i].pack(context, store_, dtype, shared_weights_[i]);
  }
  for (std::size_t i = 0; i < experts_.size(); ++i) {
    experts_[i].pack(context, store_, dtype, expert_weights_[i]);
  }
}

Router::Input SubLayer::router_input(const RankContext& rank, const Tensor& h,
                                     const Tensor& hash_logits) const {
  return {.h = h,
          .hash_logits = hash_logits,
          .masked = position_.layer >= rank.mask.first_layer ? rank.mask.experts : 0,
          .jitter = {}};
}

Jitter SubLayer::jitter(const RankContext& rank, std::int64_t first_token) const {
  const float epsilon = rank.training.jitter.at(static_cast<std::size_t>(position_.group));
  if (epsilon == 0) {
    return {};
  }
  return {.epsilon = epsilon,
          .key = random_key(rank.training.seed,
                            fmt::format("router jitter {}.{}", position_.block, position_.group)),
          .first_row = rank.training.first_token + first_token};
}

Tensor SubLayer::speculate(RankContext& rank, const Input& input) const {
  Norm::Saved norm;
  Router::Saved choice;
  RouterLoad uncounted{.counts = std::vector<double>(static_cast<std::size_t>(config_.num_experts)),
                       .probabilities = {}};
  const Tensor h = norm_.forward(rank, input.x, norm);
  router_.forward(rank, router_input(rank, h, input.hash_logits), choice, uncounted);
  return choice.experts;
}

void SubLayer::route(RankContext& rank, const Input& input, Chunk& chunk, RouterLoad& load) const {
  chunk.h = norm_.forward(rank, input.x, chunk.norm);
  Router::Input router_in = router_input(rank, chunk.h, input.hash_logits);
  router_in.jitter = jitter(rank, chunk.first_token);
  router_.forward(rank, router_in, chunk.router, load);
  const TokenRouting routing{.block = position_.block,
                             .layer = position_.layer,
                             .group = position_.group,
                             .experts = chunk.router.experts,
                             .first_token = chunk.first_token};
  if (rank.on_route) {
    rank.on_route(
        {.routing = routing, .gates = chunk.router.gates, .speculative = input.speculative});
  }
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
  chunk.transfer = rank.exchange.begin_plan(rank.op, rank.activations, routing);
}

void SubLayer::send(RankContext& rank, Chunk& chunk) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
  chunk.plan = rank.exchange.finish_plan(rank.op, std::move(chunk.transfer));
  chunk.transfer = rank.exchange.begin_dispatch(rank.op, rank.activations, chunk.plan,
                                                {chunk.h, chunk.router.row_gates});
}

void SubLayer::compute(RankContext& rank, Chunk& chunk, const Tensor& out) const {
  const Tensor& x = chunk.norm.x;
  const std::int64_t width = config_.expert_width();
  if (shared_.empty()) {
    convert(rank.op, x, out);
  } else {
    shared_forward(rank, chunk, out);
    add_in_place(rank.op, x, out);
  }
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
    chunk.received = rank.exchange.finish_dispatch(rank.op, std::move(chunk.transfer));
  }
  const Tensor y = rank.activations.tensor(rank.dtype, chunk.received.values.shape());
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::experts);
    chunk.gate_up = rank.activations.tensor(rank.dtype, {y.rows(), 2 * width});
    ffn_forward(rank.op, expert_weights_, chunk.plan.slot_offsets, chunk.received.values,
                chunk.received.scalars, chunk.gate_up, y);
  }
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
  chunk.transfer = rank.exchange.begin_combine(rank.op, rank.activations, chunk.plan, {y, {}});
}

void SubLayer::shared_forward(RankContext& rank, Chunk& chunk, const Tensor& out) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::experts);
  const ArenaScope scope(rank.op.scratch);
  const Tensor y = rank.op.scratch.tensor(out.dtype(), out.shape());
  chunk.shared_gate_up.clear();
  for (std::size_t i = 0; i < shared_.size(); ++i) {
    const bool first = i == 0;
    chunk.shared_gate_up.push_back(
        rank.activations.tensor(rank.dtype, {out.rows(), 2 * config_.expert_width()}));
    ffn_forward(rank.op, {&shared_weights_[i], 1}, one_group(out.rows()), chunk.h,
                chunk.router.shared_weights, chunk.shared_gate_up[i], first ? out : y);
    if (!first) {
      add_in_place(rank.op, y, out);
    }
  }
}

void SubLayer::gather(RankContext& rank, Chunk& chunk, const Tensor& out) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
  const Rows routed = rank.exchange.finish_combine(rank.op, std::move(chunk.transfer));
  add_in_place(rank.op, routed.values, out);
}

void SubLayer::scatter_gradients(RankContext& rank, Chunk& chunk, const Tensor& dout) const {
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
    chunk.transfer =
        rank.exchange.begin_dispatch(rank.op, rank.activations, chunk.plan, {dout, {}});
  }
  if (!shared_.empty()) {
    shared_backward(rank, chunk, dout);
  }
}

void SubLayer::shared_backward(RankContext& rank, Chunk& chunk, const Tensor& dout) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::experts);
  const ArenaScope scope(rank.op.scratch);
  chunk.dh = rank.activations.tensor(rank.dtype, dout.shape());
  chunk.dshared_weights = rank.activations.tensor(DType::f32, {dout.rows()});
  const Tensor dh = rank.op.scratch.tensor(rank.dtype, dout.shape());
  const Tensor dweights = rank.op.scratch.tensor(DType::f32, {dout.rows()});
  for (std::size_t i = 0; i < shared_.size(); ++i) {
    const bool first = i == 0;
    const FfnGradients gradients = shared_[i].gradients(store_);
    ffn_backward(rank.op, {&shared_weights_[i], 1}, {&gradients, 1}, one_group(dout.rows()),
                 chunk.h, chunk.router.shared_weights, chunk.shared_gate_up[i], dout,
                 first ? chunk.dh : dh, first ? chunk.dshared_weights : dweights);
    if (!first) {
      add_in_place(rank.op, dh, chunk.dh);
      add_in_place(rank.op, dweights, chunk.dshared_weights);
    }
  }
}

void SubLayer::compute_gradients(RankContext& rank, Chunk& chunk) const {
  Rows dy;
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
    dy = rank.exchange.finish_dispatch(rank.op, std::move(chunk.transfer));
  }
  Rows dreceived{rank.activations.tensor(rank.dtype, dy.values.shape()),
                 rank.activations.tensor(DType::f32, {dy.values.rows()})};
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::experts);
    std::vector<FfnGradients> gradients;
    for (const FfnParameters& expert : experts_) {
      gradients.push_back(expert.gradients(store_));
    }
    ffn_backward(rank.op, expert_weights_, gradients, chunk.plan.slot_offsets,
                 chunk.received.values, chunk.received.scalars, chunk.gate_up, dy.values,
                 dreceived.values, dreceived.scalars);
  }
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
  chunk.transfer = rank.exchange.begin_combine(rank.op, rank.activations, chunk.plan, dreceived);
}

void SubLayer::gather_gradients(RankContext& rank, Chunk& chunk, const Tensor& dprobability,
                                const Tensor& dx) const {
  Rows routed;
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
    routed = rank.exchange.finish_combine(rank.op, std::move(chunk.transfer));
  }
  if (!shared_.empty()) {
    add_in_place(rank.op, chunk.dh, routed.values);
  }
  const Router::LossGradient losses{
      .dprobability = dprobability,
      .z_loss = rank.training.z_loss.at(static_cast<std::size_t>(position_.group))};
  router_.backward(rank, chunk.router, routed.scalars, chunk.dshared_weights, losses,
                   routed.values);
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::router);
  norm_.backward(rank, chunk.norm, routed.values, dx);
}

}  // namespace cartesian
