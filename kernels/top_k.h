#pragma once
// A router's choice: softmax over the experts, the k most probable (or as many as it takes for a
// given share of the probability), and their gates; float32 throughout.

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

/// As top_k_forward(), but a token's experts are those, in order of probability, until their sum
/// exceeds `threshold`; the one that crosses it is in. `experts` has room for k; columns beyond a
/// token's experts are -1, their gates 0. Gates are the probabilities themselves. REQUIRES: k is at
/// least top_p_choices(threshold, experts).
void top_p_forward(const Context& context, float threshold, const Tensor& logits,
                   const Tensor& probabilities, const Tensor& experts, const Tensor& gates);
/// As top_k_backward(), for the gates of top_p_forward().
void top_p_backward(const Context& context, const Tensor& probabilities, const Tensor& experts,
                    const Tensor& dgates, const Tensor& dprobability, const Tensor& dlogits);
/// The most of `experts` that top_p can choose for one token: that many, where all are equal.
std::int64_t top_p_choices(double threshold, std::int64_t experts);

/// Sets each row's n largest logits, the lower id first among equals, to -infinity: as if these
/// experts were not there. REQUIRES: n < experts.
void mask_largest(const Context& context, std::int64_t n, const Tensor& logits);

}  // namespace cartesian
