#pragma once
// The router z-loss of ST-MoE (Zoph et al., "ST-MoE: Designing Stable and Transferable Sparse
// Expert Models", arXiv 2202.08906, equation 5): the mean over tokens of the squared logarithm of
// the sum of the exponentials of a router's logits, which keeps logits small; float32.

#include "base/context.h"

namespace cartesian {

/// result[t] = log(sum over e of exp(logits[t, e])). logits [tokens, experts], result [tokens].
void log_sum_exp(const Context& context, const Tensor& logits, const Tensor& result);

/// dlogits += scale times the gradient of the sum over tokens of log_sum_exp^2: scale * 2 *
/// log_sum_exp[t] * probabilities[t, e]. probabilities [tokens, experts] are softmax(logits).
void z_loss_backward(const Context& context, const Tensor& probabilities, const Tensor& log_sum_exp,
                     float scale, const Tensor& dlogits);

}  // namespace cartesian
