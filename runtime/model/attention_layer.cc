#include "runtime/model/attention_layer.h"

#include <fmt/format.h>

#include "kernels/elementwise.h"

namespace cartesian {

AttentionLayer::AttentionLayer(ParameterStore& store, const ModelConfig& config, std::int64_t block)
    : heads_(config.num_attention_heads),
      norm_(store, fmt::format("model.layers.{}.input_layernorm.weight", block), config.hidden_size,
            config.rms_norm_eps),
      qkv_(store,
           {fmt::format("model.layers.{}.self_attn.q_proj.weight", block),
            fmt::format("model.layers.{}.self_attn.k_proj.weight", block),
            fmt::format("model.layers.{}.self_attn.v_proj.weight", block)},
           3 * config.hidden_size, config.hidden_size, config.initializer_range),
      output_(store, {fmt::format("model.layers.{}.self_attn.o_proj.weight", block)},
              config.hidden_size, config.hidden_size, residual_init_std(config)) {}

void AttentionLayer::pack(const Context& context, DType dtype) {
  qkv_.pack(context, dtype);
  output_.pack(context, dtype);
}

void AttentionLayer::forward(RankContext& rank, const RopeTable& rope_table,
                             const AttentionSequences& sequences, const Tensor& x,
                             const Tensor& out, Saved& saved) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::attention);
  const std::int64_t tokens = x.rows();
  const std::int64_t hidden = x.cols();
  saved.h = norm_.forward(rank, x, saved.norm);
  saved.qkv = rank.activations.tensor(rank.dtype, {tokens, 3, heads_, hidden / heads_});
  saved.attended = rank.activations.tensor(rank.dtype, {tokens, hidden});
  saved.log_sum_exp =
      rank.activations.tensor(DType::f32, {tokens / sequences.length, heads_, sequences.length});
  qkv_.forward(rank, saved.h, saved.qkv.reshape({tokens, 3 * hidden}));
  rope(rank.op, rope_table, sequences.length, saved.qkv, /*inverse=*/false);
  attention_forward(rank.op, saved.qkv, sequences, saved.attended, saved.log_sum_exp);
  output_.forward(rank, saved.attended, out);
  add_in_place(rank.op, x, out);
}

void AttentionLayer::backward(RankContext& rank, const RopeTable& rope_table,
                              const AttentionSequences& sequences, const Saved& saved,
                              const Tensor& dx) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::attention);
  const ArenaScope scope(rank.op.scratch);
  const std::int64_t tokens = dx.rows();
  const std::int64_t hidden = dx.cols();
  const Tensor dattended = rank.op.scratch.tensor(rank.dtype, {tokens, hidden});
  const Tensor dqkv = rank.op.scratch.tensor(rank.dtype, saved.qkv.shape());
  const Tensor dqkv_rows = dqkv.reshape({tokens, 3 * hidden});
  const Tensor dh = rank.op.scratch.tensor(rank.dtype, {tokens, hidden});
  output_.backward(rank, saved.attended, dx, dattended);
  attention_backward(rank.op, saved.qkv, sequences, saved.attended, saved.log_sum_exp, dattended,
                     dqkv);
  rope(rank.op, rope_table, sequences.length, dqkv, /*inverse=*/true);
  qkv_.backward(rank, saved.h, dqkv_rows, dh);
  norm_.backward(rank, saved.norm, dh, dx);
}

}  // namespace cartesian
