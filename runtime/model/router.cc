#include "runtime/model/router.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/biased_top_k.h"
#include "kernels/elementwise.h"
#include "kernels/mix.h"
#include "kernels/top_k.h"
#include "kernels/z_loss.h"

namespace cartesian {

namespace {

constexpr std::int64_t kMix = 2;  // logits of the mix: routed, shared

/// Copies columns [begin, begin + to.cols()) of `from`.
void copy_columns(const Tensor& from, std::int64_t begin, const Tensor& to) {
  for (std::int64_t row = 0; row < to.rows(); ++row) {
    std::copy_n(from.data<float>() + row * from.cols() + begin, to.cols(),
                to.data<float>() + row * to.cols());
  }
}

/// Writes `from` to columns [begin, begin + from.cols()) of `to`.
void paste_columns(const Tensor& from, const Tensor& to, std::int64_t begin) {
  for (std::int64_t row = 0; row < from.rows(); ++row) {
    std::copy_n(from.data<float>() + row * from.cols(), from.cols(),
                to.data<float>() + row * to.cols() + begin);
  }
}

/// `matrix` with zeros outside columns [begin, end), in scratch memory.
Tensor only_columns(const Context& context, const Tensor& matrix, std::int64_t begin,
                    std::int64_t end) {
  const Tensor part = context.scratch.zeros(DType::f32, matrix.shape());
  for (std::int64_t row = 0; row < matrix.rows(); ++row) {
    std::copy_n(matrix.data<float>() + row * matrix.cols() + begin, end - begin,
                part.data<float>() + row * matrix.cols() + begin);
  }
  return part;
}

void add_load(const Router::Saved& saved, RouterLoad& load) {
  const Tensor& probabilities = saved.probabilities;
  if (saved.log_sum_exp.defined()) {
    for (const float z : saved.log_sum_exp.span<float>()) {
      load.z_loss += static_cast<double>(z) * z;
    }
  }
  for (const std::int32_t expert : saved.experts.span<std::int32_t>()) {
    if (expert >= 0) {
      load.counts[static_cast<std::size_t>(expert)] += 1;
    }
  }
  for (std::int64_t row = 0; row < probabilities.rows(); ++row) {
    const float* p = probabilities.data<float>() + row * probabilities.cols();
    for (std::size_t e = 0; e < load.probabilities.size(); ++e) {
      load.probabilities[e] += p[e];
    }
  }
}

}  // namespace

Router::Router(ParameterStore& store, const ModelConfig& config, const Names& names)
    : store_(store),
      kind_(config.routing_kind()),
      experts_(config.num_experts),
      choices_(config.max_choices()),
      threshold_(static_cast<float>(config.moe_top_p)),
      shared_scale_(1.0F / static_cast<float>(std::max<std::int64_t>(1, config.shared_ffns()))),
      mixed_(config.use_residual) {
  const std::int64_t hidden = config.hidden_size;
  std::vector<NamedTensor> parts;
  const auto add_part = [&](const std::string& name, std::int64_t rows) {
    parts.push_back({.name = name + ".weight",
                     .shape = {rows, hidden},
                     .init_std = config.initializer_range,
                     .decay = true});
  };
  if (router_columns() > 0) {
    add_part(names.router, experts_);
  }
  if (mixed_) {
    add_part(names.mix, kMix);
  }
  if (!parts.empty()) {
    weight_ = store.add(std::move(parts), {columns(), hidden});
  }
  if (mixed_) {
    bias_ = store.add({{.name = names.mix + ".bias", .shape = {kMix}}}, {kMix});
  }
  if (config.router_bias) {
    // Nothing gives it a gradient and it does not decay: only move_bias() moves it.
    expert_bias_ = store.add({{.name = names.expert_bias, .shape = {experts_}}}, {experts_});
  }
}

void Router::pack(const Context& context) {
  if (columns() > 0) {
    packed_.pack(context, store_.weight(weight_), DType::f32);
  }
}

void Router::forward(RankContext& rank, const Input& input, Saved& saved, RouterLoad& load) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::router);
  const std::int64_t tokens = input.h.rows();
  Arena& arena = rank.activations;
  saved.h = input.h;
  if (input.h.dtype() != DType::f32) {
    saved.h = arena.tensor(DType::f32, input.h.shape());
    convert(rank.op, input.h, saved.h);
  }
  saved.jitter = input.jitter;
  saved.jittered = {};
  if (input.jitter.epsilon > 0 && router_columns() > 0) {
    saved.jittered = arena.tensor(DType::f32, input.h.shape());
    apply_jitter(rank.op, input.jitter, saved.h, saved.jittered);
  }
  saved.probabilities = arena.tensor(DType::f32, {tokens, experts_});
  saved.experts = arena.tensor(DType::i32, {tokens, choices_});
  saved.gates = arena.tensor(DType::f32, {tokens, choices_});
  saved.row_gates = saved.gates;
  const ArenaScope scope(rank.op.scratch);
  Tensor logits = saved.probabilities;
  if (mixed_) {
    logits = rank.op.scratch.tensor(DType::f32, {tokens, columns()});
  }
  if (columns() > 0) {
    logits_forward(rank, saved, logits);
  }
  if (kind_ == RoutingKind::hash) {
    convert(rank.op, input.hash_logits, saved.probabilities);
  } else if (mixed_) {
    copy_columns(logits, 0, saved.probabilities);
  }
  saved.log_sum_exp = {};
  if (router_columns() > 0) {
    saved.log_sum_exp = arena.tensor(DType::f32, {tokens});
    log_sum_exp(rank.op, saved.probabilities, saved.log_sum_exp);
  }
  choose(rank, input.masked, saved);
  if (mixed_) {
    const Tensor mix_logits = rank.op.scratch.tensor(DType::f32, {tokens, kMix});
    copy_columns(logits, router_columns(), mix_logits);
    saved.coefficients = arena.tensor(DType::f32, {tokens, kMix});
    saved.row_gates = arena.tensor(DType::f32, {tokens, choices_});
    saved.shared_weights = arena.tensor(DType::f32, {tokens});
    mix_forward(rank.op, mix_logits, store_.weight(bias_), saved.gates, shared_scale_,
                saved.coefficients, saved.row_gates, saved.shared_weights);
  }
  add_load(saved, load);
}

void Router::logits_forward(RankContext& rank, const Saved& saved, const Tensor& logits) const {
  if (!saved.jittered.defined()) {
    linear_forward(rank.op, saved.h, packed_, logits);
    return;
  }
  linear_forward(rank.op, saved.jittered, packed_, logits);
  if (mixed_) {
    const ArenaScope scope(rank.op.scratch);
    const Tensor plain = rank.op.scratch.tensor(DType::f32, logits.shape());
    const Tensor mix_logits = rank.op.scratch.tensor(DType::f32, {logits.rows(), kMix});
    linear_forward(rank.op, saved.h, packed_, plain);
    copy_columns(plain, router_columns(), mix_logits);
    paste_columns(mix_logits, logits, router_columns());
  }
}

void Router::logits_backward(RankContext& rank, const Saved& saved, const Tensor& dlogits,
                             const Tensor& dh) const {
  const Tensor dweight = store_.gradient(weight_);
  if (!saved.jittered.defined()) {
    linear_backward_input(rank.op, dlogits, packed_, dh);
    linear_backward_weight(rank.op, dlogits, saved.h, dweight);
    return;
  }
  const ArenaScope scope(rank.op.scratch);
  const Tensor of_router = only_columns(rank.op, dlogits, 0, router_columns());
  linear_backward_input(rank.op, of_router, packed_, dh);
  linear_backward_weight(rank.op, of_router, saved.jittered, dweight);
  apply_jitter(rank.op, saved.jitter, dh, dh);
  if (mixed_) {
    const Tensor of_mix = only_columns(rank.op, dlogits, router_columns(), columns());
    const Tensor dh_mix = rank.op.scratch.tensor(DType::f32, dh.shape());
    linear_backward_input(rank.op, of_mix, packed_, dh_mix);
    linear_backward_weight(rank.op, of_mix, saved.h, dweight);
    add_in_place(rank.op, dh_mix, dh);
  }
}

void Router::choose(RankContext& rank, std::int64_t masked, const Saved& saved) const {
  const Tensor& p = saved.probabilities;
  if (expert_bias_) {
    const Tensor bias = store_.weight(*expert_bias_);
    mask_largest_biased(rank.op, masked, bias, p);
    biased_top_k_forward(rank.op, p, bias, p, saved.experts, saved.gates);
    return;
  }
  mask_largest(rank.op, masked, p);
  if (kind_ == RoutingKind::top_p) {
    top_p_forward(rank.op, threshold_, p, p, saved.experts, saved.gates);
  } else {
    top_k_forward(rank.op, p, p, saved.experts, saved.gates);
  }
}

void Router::choose_backward(RankContext& rank, const Saved& saved, const Tensor& dgates,
                             const LossGradient& losses, const Tensor& dlogits) const {
  if (kind_ == RoutingKind::top_p) {
    top_p_backward(rank.op, saved.probabilities, saved.experts, dgates, losses.dprobability,
                   dlogits);
  } else {
    top_k_backward(rank.op, saved.probabilities, saved.experts, saved.gates, dgates,
                   losses.dprobability, dlogits);
  }
  if (losses.z_loss > 0) {
    z_loss_backward(rank.op, saved.probabilities, saved.log_sum_exp, losses.z_loss, dlogits);
  }
}

float Router::move_bias(const RouterLoad& load, double rate) const {
  if (!expert_bias_) {
    return 0;
  }
  const double mean = std::accumulate(load.counts.begin(), load.counts.end(), 0.0) /
                      static_cast<double>(load.counts.size());
  const std::span<float> bias = store_.weight(*expert_bias_).span<float>();
  const auto step = static_cast<float>(rate);
  float largest = 0;
  for (std::size_t e = 0; e < bias.size(); ++e) {
    if (load.counts[e] != mean) {
      bias[e] += load.counts[e] < mean ? step : -step;
    }
    // One that is not a number, from a checkpoint made elsewhere, must be seen.
    largest = std::max(largest, std::isfinite(bias[e]) ? std::abs(bias[e])
                                                       : std::numeric_limits<float>::infinity());
  }
  return largest;
}

void Router::backward(RankContext& rank, const Saved& saved, const Tensor& drow_gates,
                      const Tensor& dshared_weights, const LossGradient& losses,
                      const Tensor& dh) const {
  if (columns() == 0) {
    return;
  }
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::router);
  const std::int64_t tokens = saved.h.rows();
  Arena& scratch = rank.op.scratch;
  const ArenaScope scope(scratch);
  const Tensor dlogits = scratch.tensor(DType::f32, {tokens, columns()});
  if (!mixed_) {
    choose_backward(rank, saved, drow_gates, losses, dlogits);
  } else {
    const Tensor dgates = scratch.tensor(DType::f32, {tokens, choices_});
    const Tensor dmix_logits = scratch.tensor(DType::f32, {tokens, kMix});
    mix_backward(rank.op, saved.coefficients, saved.gates, shared_scale_, drow_gates,
                 dshared_weights, dgates, dmix_logits, store_.gradient(bias_));
    paste_columns(dmix_logits, dlogits, router_columns());
    if (router_columns() > 0) {
      const Tensor drouter_logits = scratch.tensor(DType::f32, {tokens, experts_});
      choose_backward(rank, saved, dgates, losses, drouter_logits);
      paste_columns(drouter_logits, dlogits, 0);
    }
  }
  const Tensor dh_router = scratch.tensor(DType::f32, saved.h.shape());
  logits_backward(rank, saved, dlogits, dh_router);
  if (dh.dtype() == DType::f32) {
    add_in_place(rank.op, dh_router, dh);
  } else {
    const Tensor rounded = scratch.tensor(dh.dtype(), dh.shape());
    convert(rank.op, dh_router, rounded);
    add_in_place(rank.op, rounded, dh);
  }
}

}  // namespace cartesian
