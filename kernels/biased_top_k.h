#pragma once
// top_k with a bias that takes part in the choice alone: auxiliary-loss-free balancing (Wang et
// al., "Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts", arXiv 2408.15664,
// section 3). The backward is top_k_backward(): the bias has no gradient, and gates are those of
// the probabilities.

#include "base/context.h"

namespace cartesian {

/// As top_k_forward(), but the k experts with the largest probability + bias are chosen; bias
/// [experts] float32. `experts` stays in order of probability, larger first. An expert whose logit
/// is -infinity is chosen only where no other is left. Chosen experts whose probabilities are all
/// zero get equal gates, which are constants: they have no gradient.
void biased_top_k_forward(const Context& context, const Tensor& logits, const Tensor& bias,
                          const Tensor& probabilities, const Tensor& experts, const Tensor& gates);

/// As mask_largest(), but masks the experts that biased_top_k_forward() would choose first.
void mask_largest_biased(const Context& context, std::int64_t n, const Tensor& bias,
                         const Tensor& logits);

}  // namespace cartesian
