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
      experts_(config.num_experts),
      top_k_(config.moe_top_k),
      mixed_(config.use_residual) {
  const std::int64_t hidden = config.hidden_size;
  std::vector<NamedTensor> parts = {{.name = router_name + ".weight",
                                     .shape = {experts_, hidden},
                                     .init_std = config.initializer_range,
                                     .decay = true}};
  if (mixed_) {
    parts.push_back({.name = mix_name + ".weight",
                     .shape = {kMix, hidden},
                     .init_std = config.initializer_range,
                     .decay = true});
  }
  weight_ = store.add(std::move(parts), {experts_ + (mixed_ ? kMix : 0), hidden});
  if (mixed_) {
    bias_ = store.add({{.name = mix_name + ".bias", .shape = {kMix}}}, {kMix});
  }
}

void Router::pack(const Context& context) {
  packed_.pack(context, store_.weight(weight_), DType::f32);
}

void Router::forward(RankContext& rank, const Tensor& h, Saved& saved, RouterLoad& load) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::router);
  const std::int64_t tokens = h.rows();
  Arena& arena = rank.activations;
  saved.h = h;
  if (h.dtype() != DType::f32) {
    saved.h = arena.tensor(DType::f32, h.shape());
    convert(rank.op, h, saved.h);
  }
  saved.probabilities = arena.tensor(DType::f32, {tokens, experts_});
  saved.experts = arena.tensor(DType::i32, {tokens, top_k_});
  saved.gates = arena.tensor(DType::f32, {tokens, top_k_});
  saved.row_gates = saved.gates;
  const ArenaScope scope(rank.op.scratch);
  if (!mixed_) {
    linear_forward(rank.op, saved.h, packed_, saved.probabilities);
    top_k_forward(rank.op, saved.probabilities, saved.probabilities, saved.experts, saved.gates);
  } else {
    const Tensor logits = rank.op.scratch.tensor(DType::f32, {tokens, experts_ + kMix});
    const Tensor mix_logits = rank.op.scratch.tensor(DType::f32, {tokens, kMix});
    linear_forward(rank.op, saved.h, packed_, logits);
    copy_columns(logits, 0, saved.probabilities);
    copy_columns(logits, experts_, mix_logits);
    top_k_forward(rank.op, saved.probabilities, saved.probabilities, saved.experts, saved.gates);
    saved.coefficients = arena.tensor(DType::f32, {tokens, kMix});
    saved.row_gates = arena.tensor(DType::f32, {tokens, top_k_});
    saved.shared_weights = arena.tensor(DType::f32, {tokens});
    mix_forward(rank.op, mix_logits, store_.weight(bias_), saved.gates, saved.coefficients,
                saved.row_gates, saved.shared_weights);
  }
  add_load(saved.probabilities, saved.experts, load);
}

void Router::backward(RankContext& rank, const Saved& saved, const Tensor& drow_gates,
                      const Tensor& dshared_weights, const Tensor& dprobability,
                      const Tensor& dh) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::router);
  const std::int64_t tokens = saved.h.rows();
  Arena& scratch = rank.op.scratch;
  const ArenaScope scope(scratch);
  const Tensor dlogits = scratch.tensor(DType::f32, {tokens, packed_.out_features()});
  if (!mixed_) {
    top_k_backward(rank.op, saved.probabilities, saved.experts, saved.gates, drow_gates,
                   dprobability, dlogits);
  } else {
    const Tensor dgates = scratch.tensor(DType::f32, {tokens, top_k_});
    const Tensor dmix_logits = scratch.tensor(DType::f32, {tokens, kMix});
    const Tensor drouter_logits = scratch.tensor(DType::f32, {tokens, experts_});
    mix_backward(rank.op, saved.coefficients, saved.gates, drow_gates, dshared_weights, dgates,
                 dmix_logits, store_.gradient(bias_));
    top_k_backward(rank.op, saved.probabilities, saved.experts, saved.gates, dgates, dprobability,
                   drouter_logits);
    paste_columns(drouter_logits, dlogits, 0);
    paste_columns(dmix_logits, dlogits, experts_);
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
