#include "runtime/model/dense_layer.h"

#include <fmt/format.h>

#include <array>

#include "kernels/elementwise.h"

namespace cartesian {

DenseLayer::DenseLayer(ParameterStore& store, const ModelConfig& config, std::int64_t block)
    : store_(store),
      width_(config.intermediate_size),
      norm_(store, fmt::format("model.layers.{}.post_attention_layernorm.weight", block),
            config.hidden_size, config.rms_norm_eps),
      parameters_(store, fmt::format("model.layers.{}.mlp.", block), config.hidden_size, width_,
                  config.initializer_range, residual_init_std(config)) {}

void DenseLayer::pack(const Context& context, DType dtype) {
  parameters_.pack(context, store_, dtype, weights_);
}

void DenseLayer::forward(RankContext& rank, const Tensor& x, const Tensor& out,
                         Saved& saved) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::dense_ffn);
  saved.h = norm_.forward(rank, x, saved.norm);
  saved.gate_up = rank.activations.tensor(rank.dtype, {x.rows(), 2 * width_});
  const std::array offsets = {std::int64_t{0}, x.rows()};
  ffn_forward(rank.op, {&weights_, 1}, offsets, saved.h, {}, saved.gate_up, out);
  add_in_place(rank.op, x, out);
}

void DenseLayer::backward(RankContext& rank, const Saved& saved, const Tensor& dx) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::dense_ffn);
  const ArenaScope scope(rank.op.scratch);
  const Tensor dh = rank.op.scratch.tensor(rank.dtype, dx.shape());
  const std::array offsets = {std::int64_t{0}, dx.rows()};
  const FfnGradients gradients = parameters_.gradients(store_);
  ffn_backward(rank.op, {&weights_, 1}, {&gradients, 1}, offsets, saved.h, {}, saved.gate_up, dx,
               dh, {});
  norm_.backward(rank, saved.norm, dh, dx);
}

}  // namespace cartesian
