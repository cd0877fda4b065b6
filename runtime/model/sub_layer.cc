#include "runtime/model/sub_layer.h"

#include <fmt/format.h>

#include "base/random.h"
#include "kernels/elementwise.h"
#include "runtime/model/rail_rows.h"

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
  experts_.clear();
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

Jitter SubLayer::jitter(const RankContext& rank,
                        std::span<const std::int32_t> token_numbers) const {
  const float epsilon = rank.training.jitter.at(static_cast<std::size_t>(position_.group));
  if (epsilon == 0) {
    return {};
  }
  return {.epsilon = epsilon,
          .key = random_key(rank.training.seed,
                            fmt::format("router jitter {}.{}", position_.block, position_.group)),
          .first_row = rank.training.first_token,
          .rows = token_numbers};
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
  chunk.token_numbers.clear();
  for (const SourceToken& token : input.tokens) {
    chunk.token_numbers.push_back(token.token);
  }
  chunk.h = norm_.forward(rank, input.x, chunk.norm);
  Router::Input router_in = router_input(rank, chunk.h, input.hash_logits);
  router_in.jitter = jitter(rank, chunk.token_numbers);
  router_.forward(rank, router_in, chunk.router, load);
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
  chunk.transfer = rank.exchange.begin_plan(rank.op, {.block = position_.block,
                                                      .layer = position_.layer,
                                                      .group = position_.group,
                                                      .tokens = input.tokens,
                                                      .experts = chunk.router.experts,
                                                      .gates = chunk.router.row_gates,
                                                      .shared_weights = chunk.router.shared_weights,
                                                      .expected = input.expected,
                                                      .first_home_token = input.first_home_token,
                                                      .home_tokens = input.home_tokens});
}

void SubLayer::send(RankContext& rank, Chunk& chunk) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
  chunk.plan = rank.exchange.finish_plan(std::move(chunk.transfer));
  chunk.transfer = rank.exchange.begin_spread(rank.op, chunk.plan, chunk.norm.x);
}

void SubLayer::hand_out(RankContext& rank, Chunk& chunk) const {
  Tensor arrived;
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
    arrived = rank.exchange.finish_spread(rank.op, rank.activations, chunk.plan,
                                          std::move(chunk.transfer));
  }
  chunk.rail_h = norm_.forward(rank, arrived, chunk.rail_norm);
  find_finished(rank, chunk);
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
  const std::vector<const std::byte*> rows = rail_rows(chunk.h, chunk.rail_h);
  chunk.transfer =
      rank.exchange.begin_hand_out(rank.op, chunk.plan, rank.dtype, config_.hidden_size, rows);
}

/// Rows of the finished rails that the shared FFNs need, one after the other.
void SubLayer::find_finished(RankContext& rank, Chunk& chunk) const {
  const std::vector<RailToken>& rails = chunk.plan.rails;
  chunk.finished.clear();
  for (std::size_t rail = 0; rail < rails.size(); ++rail) {
    if (rails[rail].finishes != 0) {
      chunk.finished.push_back(static_cast<std::int32_t>(rail));
    }
  }
  const auto count = static_cast<std::int64_t>(chunk.finished.size());
  chunk.all_sources = count == chunk.plan.sources &&
                      (count == 0 || chunk.finished.back() + 1 == chunk.plan.sources);
  if (shared_.empty()) {
    return;
  }
  if (chunk.all_sources) {
    chunk.shared_h = chunk.h;
    chunk.shared_weights = chunk.router.shared_weights;
    return;
  }
  chunk.shared_h = rank.activations.tensor(rank.dtype, {count, config_.hidden_size});
  chunk.shared_weights = rank.activations.tensor(DType::f32, {count});
  const std::vector<const std::byte*> rows = rail_rows(chunk.h, chunk.rail_h);
  gather_rows(rank.op, rows, chunk.finished, chunk.shared_h);
  for (std::size_t i = 0; i < chunk.finished.size(); ++i) {
    chunk.shared_weights.data<float>()[i] =
        rails[static_cast<std::size_t>(chunk.finished[i])].shared_weight;
  }
}

void SubLayer::compute(RankContext& rank, Chunk& chunk, const Tensor& out) const {
  const std::int64_t width = config_.expert_width();
  // Where a target is a source, its sum is made in place.
  chunk.sums =
      chunk.plan.finds_targets ? rank.activations.tensor(rank.dtype, chunk.h.shape()) : out;
  chunk.rail_sums = rank.activations.tensor(rank.dtype, chunk.rail_h.shape());
  chunk.sum_rows = row_targets(chunk.sums);
  const std::vector<std::byte*> behind = row_targets(chunk.rail_sums);
  chunk.sum_rows.insert(chunk.sum_rows.end(), behind.begin(), behind.end());
  finish_rails(rank, chunk);
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
    chunk.received = rank.exchange.finish_hand_out(rank.op, rank.activations, chunk.plan,
                                                   std::move(chunk.transfer));
  }
  const Tensor y = rank.activations.tensor(rank.dtype, chunk.received.values.shape());
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::experts);
    chunk.gate_up = rank.activations.tensor(rank.dtype, {y.rows(), 2 * width});
    ffn_forward(rank.op, expert_weights_, chunk.plan.slot_offsets, chunk.received.values,
                chunk.received.scalars, chunk.gate_up, y);
  }
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
  chunk.transfer = rank.exchange.begin_collect(rank.op, chunk.plan, {y, {}});
}

void SubLayer::finish_rails(RankContext& rank, Chunk& chunk) const {
  if (chunk.all_sources) {
    if (shared_.empty()) {
      convert(rank.op, chunk.norm.x, chunk.sums);
    } else {
      shared_forward(rank, chunk, chunk.sums);
      add_in_place(rank.op, chunk.norm.x, chunk.sums);
    }
    return;
  }
  const ArenaScope scope(rank.op.scratch);
  const Shape shape{static_cast<std::int64_t>(chunk.finished.size()), config_.hidden_size};
  const Tensor x = rank.op.scratch.tensor(rank.dtype, shape);
  gather_rows(rank.op, rail_rows(chunk.norm.x, chunk.rail_norm.x), chunk.finished, x);
  if (!shared_.empty()) {
    const Tensor y = rank.op.scratch.tensor(rank.dtype, shape);
    shared_forward(rank, chunk, y);
    add_in_place(rank.op, y, x);
  }
  std::vector<std::byte*> to;
  for (const std::int32_t rail : chunk.finished) {
    to.push_back(chunk.sum_rows[static_cast<std::size_t>(rail)]);
  }
  copy_rows(rank.op, row_sources(x), to, row_bytes(x));
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
    ffn_forward(rank.op, {&shared_weights_[i], 1}, one_group(out.rows()), chunk.shared_h,
                chunk.shared_weights, chunk.shared_gate_up[i], first ? out : y);
    if (!first) {
      add_in_place(rank.op, y, out);
    }
  }
}

void SubLayer::collect(RankContext& rank, Chunk& chunk) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
  std::vector<std::uint8_t> fresh;
  for (const RailToken& rail : chunk.plan.rails) {
    fresh.push_back(rail.finishes != 0 ? 0 : 1);
  }
  rank.exchange.finish_collect(rank.op, chunk.plan, std::move(chunk.transfer), chunk.sum_rows,
                               fresh);
  const std::vector<const std::byte*> sums(chunk.sum_rows.begin(), chunk.sum_rows.end());
  chunk.transfer =
      rank.exchange.begin_return(rank.op, chunk.plan, rank.dtype, config_.hidden_size, sums);
}

void SubLayer::gather(RankContext& rank, Chunk& chunk, const Tensor& out) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
  rank.exchange.finish_return(rank.op, chunk.plan, std::move(chunk.transfer), row_targets(out));
  chunk.sum_rows.clear();
}

}  // namespace cartesian
