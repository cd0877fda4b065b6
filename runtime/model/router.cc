#include "runtime/model/router.h"

#include <algorithm>

#include "kernels/elementwise.h"
#include "kernels/mix.h"
#include "kernels/top_k.h"

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

void add_load(const Tensor& probabilities, const Tensor& experts, RouterLoad& load) {
  for (const std::int32_t expert : experts.span<std::int32_t>()) {
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

Router::Router(ParameterStore& store, const ModelConfig& config, const std::string& router_name,
               const std::string& mix_name)
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
    add_part(router_name, experts_);
  }
  if (mixed_) {
    add_part(mix_name, kMix);
  }
  if (!parts.empty()) {
    weight_ = store.add(std::move(parts), {columns(), hidden});
  }
  if (mixed_) {
    bias_ = store.add({{.name = mix_name + ".bias", .shape = {kMix}}}, {kMix});
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
    linear_forward(rank.op, saved.h, packed_, logits);
  }
  if (kind_ == RoutingKind::hash) {
    convert(rank.op, input.hash_logits, saved.probabilities);
  } else if (mixed_) {
    copy_columns(logits, 0, saved.probabilities);
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
  add_load(saved.probabilities, saved.experts, load);
}

void Router::choose(RankContext& rank, std::int64_t masked, const Saved& saved) const {
  const Tensor& p = saved.probabilities;
  mask_largest(rank.op, masked, p);
  if (kind_ == RoutingKind::top_p) {
    top_p_forward(rank.op, threshold_, p, p, saved.experts, saved.gates);
  } else {
    top_k_forward(rank.op, p, p, saved.experts, saved.gates);
  }
}

void Router::choose_backward(RankContext& rank, const Saved& saved, const Tensor& dgates,
                             const Tensor& dprobability, const Tensor& dlogits) const {
  if (kind_ == RoutingKind::top_p) {
    top_p_backward(rank.op, saved.probabilities, saved.experts, dgates, dprobability, dlogits);
  } else {
    top_k_backward(rank.op, saved.probabilities, saved.experts, saved.gates, dgates, dprobability,
                   dlogits);
  }
}

void Router::backward(RankContext& rank, const Saved& saved, const Tensor& drow_gates,
                      const Tensor& dshared_weights, const Tensor& dprobability,
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
    choose_backward(rank, saved, drow_gates, dprobability, dlogits);
  } else {
    const Tensor dgates = scratch.tensor(DType::f32, {tokens, choices_});
    const Tensor dmix_logits = scratch.tensor(DType::f32, {tokens, kMix});
    mix_backward(rank.op, saved.coefficients, saved.gates, shared_scale_, drow_gates,
                 dshared_weights, dgates, dmix_logits, store_.gradient(bias_));
    paste_columns(dmix_logits, dlogits, router_columns());
    if (router_columns() > 0) {
      const Tensor drouter_logits = scratch.tensor(DType::f32, {tokens, experts_});
      choose_backward(rank, saved, dgates, dprobability, drouter_logits);
      paste_columns(drouter_logits, dlogits, 0);
    }
  }
  const Tensor dh_router = scratch.tensor(DType::f32, saved.h.shape());
  linear_backward_input(rank.op, dlogits, packed_, dh_router);
  linear_backward_weight(rank.op, dlogits, saved.h, store_.gradient(weight_));
  if (dh.dtype() == DType::f32) {
    add_in_place(rank.op, dh_router, dh);
  } else {
    const Tensor rounded = scratch.tensor(dh.dtype(), dh.shape());
    convert(rank.op, dh_router, rounded);
    add_in_place(rank.op, rounded, dh);
  }
}

}  // namespace cartesian
