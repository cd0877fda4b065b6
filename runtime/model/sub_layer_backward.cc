// Backward of a sub-layer: forward's ways in reverse.

#include "kernels/elementwise.h"
#include "runtime/model/rail_rows.h"
#include "runtime/model/sub_layer.h"

namespace cartesian {

namespace {

/// What reaches x around the sub-layer: the gradient of the sum, on the rails that added x to it.
std::vector<const std::byte*> residual_gradients(const SubLayer::Chunk& chunk, std::int64_t first,
                                                 std::int64_t count) {
  std::vector<const std::byte*> rows;
  for (std::int64_t i = first; i < first + count; ++i) {
    const auto rail = static_cast<std::size_t>(i);
    rows.push_back(chunk.plan.rails[rail].finishes != 0 ? chunk.dsums.rows[rail] : nullptr);
  }
  return rows;
}

}  // namespace

void SubLayer::scatter_gradients(RankContext& rank, Chunk& chunk, const Tensor& dout) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
  chunk.transfer = rank.exchange.begin_spread_gradients(rank.op, chunk.plan, dout);
}

void SubLayer::hand_out_gradients(RankContext& rank, Chunk& chunk) const {
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
    chunk.dsums = rank.exchange.finish_spread_gradients(chunk.plan, std::move(chunk.transfer));
    chunk.transfer = rank.exchange.begin_hand_out(rank.op, chunk.plan, rank.dtype,
                                                  config_.hidden_size, chunk.dsums.rows);
  }
  if (!shared_.empty()) {
    const ArenaScope scope(rank.op.scratch);
    const Tensor dout = rank.op.scratch.tensor(rank.dtype, chunk.shared_h.shape());
    gather_rows(rank.op, chunk.dsums.rows, chunk.finished, dout);
    shared_backward(rank, chunk, dout);
  }
}

void SubLayer::shared_backward(RankContext& rank, Chunk& chunk, const Tensor& dout) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::experts);
  const ArenaScope scope(rank.op.scratch);
  chunk.dshared_h = rank.activations.tensor(rank.dtype, dout.shape());
  chunk.dshared_weights = rank.activations.tensor(DType::f32, {dout.rows()});
  const Tensor dh = rank.op.scratch.tensor(rank.dtype, dout.shape());
  const Tensor dweights = rank.op.scratch.tensor(DType::f32, {dout.rows()});
  for (std::size_t i = 0; i < shared_.size(); ++i) {
    const bool first = i == 0;
    const FfnGradients gradients = shared_[i].gradients(store_);
    ffn_backward(rank.op, {&shared_weights_[i], 1}, {&gradients, 1}, one_group(dout.rows()),
                 chunk.shared_h, chunk.shared_weights, chunk.shared_gate_up[i], dout,
                 first ? chunk.dshared_h : dh, first ? chunk.dshared_weights : dweights);
    if (!first) {
      add_in_place(rank.op, dh, chunk.dshared_h);
      add_in_place(rank.op, dweights, chunk.dshared_weights);
    }
  }
}

void SubLayer::compute_gradients(RankContext& rank, Chunk& chunk) const {
  Rows dy;
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
    dy = rank.exchange.finish_hand_out(rank.op, rank.activations, chunk.plan,
                                       std::move(chunk.transfer));
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
  chunk.transfer = rank.exchange.begin_collect(rank.op, chunk.plan, dreceived);
}

void SubLayer::collect_gradients(RankContext& rank, Chunk& chunk) const {
  const std::vector<RailToken>& rails = chunk.plan.rails;
  // Gradients of the rails' h: what the shared FFNs left there, and what the experts sent.
  chunk.dh = rank.activations.tensor(rank.dtype, chunk.h.shape());
  const Tensor behind = rank.activations.tensor(rank.dtype, chunk.rail_h.shape());
  std::vector<std::byte*> rows = row_targets(chunk.dh);
  const std::vector<std::byte*> rows_behind = row_targets(behind);
  rows.insert(rows.end(), rows_behind.begin(), rows_behind.end());
  std::vector<std::uint8_t> fresh(rails.size(), 1);
  std::vector<float> dweights(rails.size());
  if (!shared_.empty()) {
    std::vector<std::byte*> finished;
    for (std::size_t i = 0; i < chunk.finished.size(); ++i) {
      const auto rail = static_cast<std::size_t>(chunk.finished[i]);
      finished.push_back(rows[rail]);
      fresh[rail] = 0;
      dweights[rail] = chunk.dshared_weights.data<float>()[i];
    }
    copy_rows(rank.op, row_sources(chunk.dshared_h), finished, row_bytes(chunk.dh));
  }
  std::vector<float> dgates;
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
    dgates =
        rank.exchange.finish_collect(rank.op, chunk.plan, std::move(chunk.transfer), rows, fresh);
  }

  // On rails behind the sources also through the norm and around it, then on to the source.
  const Tensor dx = rank.activations.tensor(rank.dtype, behind.shape());
  copy_rows(rank.op, residual_gradients(chunk, chunk.plan.sources, dx.rows()), row_targets(dx),
            row_bytes(dx));
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::router);
    norm_.backward(rank, chunk.rail_norm, behind, dx);
  }
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
  chunk.transfer = rank.exchange.begin_return_gradients(
      rank.op, chunk.plan, {.rows = dx, .choices = dgates, .shared_weights = dweights});
}

void SubLayer::gather_gradients(RankContext& rank, Chunk& chunk, const Tensor& dprobability,
                                const Tensor& dx) const {
  copy_rows(rank.op, residual_gradients(chunk, 0, chunk.plan.sources), row_targets(dx),
            row_bytes(dx));
  chunk.dsums = {};
  const ArenaScope scope(rank.op.scratch);
  const Tensor dgates = rank.op.scratch.tensor(DType::f32, chunk.router.gates.shape());
  const Tensor dweights = rank.op.scratch.tensor(DType::f32, {chunk.plan.sources});
  {
    const PhaseTimer timer(rank.times, rank.op.clock, Phase::exchange);
    rank.exchange.finish_return_gradients(
        rank.op, chunk.plan, std::move(chunk.transfer),
        {.rows = dx, .gates = dgates, .shared_weights = dweights});
  }
  const Router::LossGradient losses{
      .dprobability = dprobability,
      .z_loss = rank.training.z_loss.at(static_cast<std::size_t>(position_.group))};
  router_.backward(rank, chunk.router, dgates, shared_.empty() ? Tensor() : dweights, losses,
                   chunk.dh);
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::router);
  norm_.backward(rank, chunk.norm, chunk.dh, dx);
}

}  // namespace cartesian
