#pragma once
// Causal multi-head self-attention, over whole sequences or within their documents, blocked with an
// online softmax so that no [length, length] matrix exists (Dao et al., arXiv 2205.14135; backward
// recomputes probabilities from the saved log-sum-exp). Scale 1/sqrt(head_dim).

#include "base/context.h"

namespace cartesian {

/// Which keys a query attends to: those of its sequence that do not come after it, from its first
/// key on.
struct AttentionSequences {
  std::int64_t length;  ///< tokens of each sequence
  /// [sequences * length] int32: each query's first key, as an index within its sequence; it is not
  /// after the query and does not decrease. Undefined: 0 for all.
  Tensor first_keys;
};

/// qkv [sequences * length, 3, heads, head_dim], out [sequences * length, heads * head_dim] of one
/// dtype (float32 or bfloat16; float32 inside); log_sum_exp [sequences, heads, length] float32 is
/// saved for backward.
/// Blocks of keys that no query of a block attends to are skipped.
void attention_forward(const Context& context, const Tensor& qkv,
                       const AttentionSequences& sequences, const Tensor& out,
                       const Tensor& log_sum_exp);

/// From dout: dqkv, shaped as qkv, overwritten. Same bits whatever context.threads is.
void attention_backward(const Context& context, const Tensor& qkv,
                        const AttentionSequences& sequences, const Tensor& out,
                        const Tensor& log_sum_exp, const Tensor& dout, const Tensor& dqkv);

}  // namespace cartesian
