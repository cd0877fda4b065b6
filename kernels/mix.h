#pragma once
// The learned mix of routed and shared experts: c = softmax(logits + bias) in R^2. c_0 is folded
// into the routed gates, c_1 weights the shared expert, so each reaches its expert as a weight per
// row (kernels/swiglu.h).

#include "base/context.h"

namespace cartesian {

/// logits [tokens, 2], bias [2], gates [tokens, k], all float32. coefficients [tokens, 2];
/// row_gates[t, j] = coefficients[t, 0] * gates[t, j]; shared_weights[t] = shared_scale *
/// coefficients[t, 1].
void mix_forward(const Context& context, const Tensor& logits, const Tensor& bias,
                 const Tensor& gates, float shared_scale, const Tensor& coefficients,
                 const Tensor& row_gates, const Tensor& shared_weights);

/// From drow_gates [tokens, k] and dshared_weights [tokens]: dgates [tokens, k], dlogits [tokens,
/// 2]; dbias [2] +=.
void mix_backward(const Context& context, const Tensor& coefficients, const Tensor& gates,
                  float shared_scale, const Tensor& drow_gates, const Tensor& dshared_weights,
                  const Tensor& dgates, const Tensor& dlogits, const Tensor& dbias);

}  // namespace cartesian
