#include "runtime/model/lm_head.h"

#include <algorithm>

#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"

namespace cartesian {

namespace {
constexpr std::int64_t kLogitBytes = std::int64_t{32} << 20;  // of one slice
}

LmHead::LmHead(ParameterStore& store, const ModelConfig& config)
    : vocab_size_(config.vocab_size),
      norm_(store, "model.norm.weight", config.hidden_size, config.rms_norm_eps),
      output_(store, {"lm_head.weight"}, config.vocab_size, config.hidden_size,
              config.initializer_range) {}

void LmHead::pack(const Context& context, DType dtype) { output_.pack(context, dtype); }

std::int64_t LmHead::slice_rows(std::int64_t vocab_size) {
  // A multiple of 16 keeps the products' sizes few.
  return std::max<std::int64_t>(16, kLogitBytes / (4 * vocab_size) / 16 * 16);
}

void LmHead::evaluate(RankContext& rank, const Tensor& x, const Tensor& targets,
                      const Tensor& losses) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::head);
  Norm::Saved saved;
  const Tensor h = norm_.forward(rank, x, saved);
  for (std::int64_t begin = 0; begin < x.rows(); begin += slice_rows()) {
    const ArenaScope scope(rank.op.scratch);
    const std::int64_t rows = std::min(slice_rows(), x.rows() - begin);
    const Tensor logits = rank.op.scratch.tensor(DType::f32, {rows, vocab_size_});
    output_.forward(rank, h.slice(begin, rows), logits);
    cross_entropy(rank.op, logits, targets.slice(begin, rows), 1, losses.slice(begin, rows), {});
  }
}

void LmHead::train(RankContext& rank, const Tensor& x, const Tensor& targets, float loss_scale,
                   const Tensor& losses, const Tensor& dx) const {
  const PhaseTimer timer(rank.times, rank.op.clock, Phase::head);
  const ArenaScope outer(rank.op.scratch);
  Norm::Saved saved;
  const Tensor h = norm_.forward(rank, x, saved);
  const Tensor dh = rank.op.scratch.tensor(rank.dtype, x.shape());
  for (std::int64_t begin = 0; begin < x.rows(); begin += slice_rows()) {
    const ArenaScope scope(rank.op.scratch);
    const std::int64_t rows = std::min(slice_rows(), x.rows() - begin);
    const Tensor logits = rank.op.scratch.tensor(DType::f32, {rows, vocab_size_});
    const Tensor dlogits =
        rank.dtype == DType::f32 ? logits : rank.op.scratch.tensor(rank.dtype, logits.shape());
    output_.forward(rank, h.slice(begin, rows), logits);
    cross_entropy(rank.op, logits, targets.slice(begin, rows), loss_scale,
                  losses.slice(begin, rows), dlogits);
    output_.backward(rank, h.slice(begin, rows), dlogits, dh.slice(begin, rows));
  }
  std::fill_n(static_cast<std::byte*>(dx.raw()), dx.bytes(), std::byte{0});
  norm_.backward(rank, saved, dh, dx);
}

void LmHead::logits(RankContext& rank, const Tensor& x, const Tensor& logits) const {
  Norm::Saved saved;
  output_.forward(rank, norm_.forward(rank, x, saved), logits);
}

}  // namespace cartesian
