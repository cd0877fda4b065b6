#pragma once
// AttentionLayer: x + W_o attention(rope(W_qkv norm(x))), on the tokens whose home is this rank.

#include "kernels/attention.h"
#include "kernels/rope.h"
#include "runtime/model/linear.h"
#include "runtime/model/model_config.h"
#include "runtime/model/norm.h"

namespace cartesian {

class AttentionLayer {
 public:
  struct Saved {
    Norm::Saved norm;
    Tensor h;            ///< [tokens, hidden]
    Tensor qkv;          ///< [tokens, 3, heads, head_dim], rotated
    Tensor attended;     ///< [tokens, hidden]
    Tensor log_sum_exp;  ///< [sequences, heads, length]
  };

  AttentionLayer(ParameterStore& store, const ModelConfig& config, std::int64_t block);

  void pack(const Context& context, DType dtype);
  /// x, out [sequences * length, hidden]; x must stay valid until backward. Positions count from
  /// the sequence's beginning also in later documents: scores depend on distances only.
  void forward(RankContext& rank, const RopeTable& rope_table, const AttentionSequences& sequences,
               const Tensor& x, const Tensor& out, Saved& saved) const;
  /// dx holds the gradient of out and becomes that of x.
  void backward(RankContext& rank, const RopeTable& rope_table, const AttentionSequences& sequences,
                const Saved& saved, const Tensor& dx) const;

 private:
  std::int64_t heads_;
  Norm norm_;
  Linear qkv_;
  Linear output_;
};

}  // namespace cartesian
