#pragma once
// Causal multi-head self-attention, blocked with an online softmax so that no [length, length]
// matrix exists (Dao et al., arXiv 2205.14135; backward recomputes probabilities from the saved
// log-sum-exp). Scale 1/sqrt(head_dim).

#include "base/context.h"

namespace cartesian {

/// qkv [sequences * length, 3, heads, head_dim], out [sequences * length, heads * head_dim] of one
/// dtype (float32 or bfloat16; float32 inside); log_sum_exp [sequences, heads, length] float32 is
/// saved for backward.
void attention_forward(const Context& context, const Tensor& qkv, std::int64_t length,
                       const Tensor& out, const Tensor& log_sum_exp);

/// From dout: dqkv, shaped as qkv, overwritten. Same bits whatever context.threads is.
void attention_backward(const Context& context, const Tensor& qkv, std::int64_t length,
                        const Tensor& out, const Tensor& log_sum_exp, const Tensor& dout,
                        const Tensor& dqkv);

}  // namespace cartesian
