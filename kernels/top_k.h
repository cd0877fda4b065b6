#pragma once
// A router's choice: softmax over the experts, the k most probable, and their gates; float32
// throughout.

#include "base/context.h"

namespace cartesian {

/// probabilities = softmax(logits), [tokens, experts] both, may be the same memory. experts
/// [tokens, k] int32: the k most probable, larger first, the lower id first among equals. gates
/// [tokens, k]: their probabilities, divided by their sum if k > 1. REQUIRES: 1 <= k <= experts.
void top_k_forward(const Context& context, const Tensor& logits, const Tensor& probabilities,
                   const Tensor& experts, const Tensor& gates);

/// dlogits [tokens, experts] from dgates [tokens, k] and `dprobability` [experts], a gradient that
/// every token's probabilities receive besides (the load-balancing loss), undefined for none.
void top_k_backward(const Context& context, const Tensor& probabilities, const Tensor& experts,
                    const Tensor& gates, const Tensor& dgates, const Tensor& dprobability,
                    const Tensor& dlogits);

}  // namespace cartesian
