#pragma once
// LmHead: the final norm, the output matrix and the cross-entropy, in slices of tokens so that
// logits never exist for all.

#include "runtime/model/linear.h"
#include "runtime/model/model_config.h"
#include "runtime/model/norm.h"

namespace cartesian {

class LmHead {
 public:
  LmHead(ParameterStore& store, const ModelConfig& config);
  void pack(const Context& context, DType dtype);

  /// losses [tokens] float32.
  void evaluate(RankContext& rank, const Tensor& x, const Tensor& targets,
                const Tensor& losses) const;
  /// As evaluate(), and dx [tokens, hidden] becomes the gradient of x for loss_scale times the sum
  /// of losses.
  void train(RankContext& rank, const Tensor& x, const Tensor& targets, float loss_scale,
             const Tensor& losses, const Tensor& dx) const;
  /// logits [rows, vocab_size] float32 of x [rows, hidden].
  void logits(RankContext& rank, const Tensor& x, const Tensor& logits) const;

  /// Tokens whose logits exist at a time.
  static std::int64_t slice_rows(std::int64_t vocab_size);

 private:
  std::int64_t slice_rows() const { return slice_rows(vocab_size_); }

  std::int64_t vocab_size_;
  Norm norm_;
  Linear output_;
};

}  // namespace cartesian
