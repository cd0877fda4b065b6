#pragma once
// Softmax cross-entropy against target ids.

#include "base/context.h"

namespace cartesian {

/// losses[t] = log(sum_v exp(logits[t, v])) - logits[t, target[t]]. logits [tokens, vocabulary]
/// float32, targets [tokens] int32, losses [tokens] float32. If `dlogits` is defined (float32 or
/// bfloat16, may be the logits themselves when float32), it becomes scale * (softmax(logits) -
/// onehot(target)).
void cross_entropy(const Context& context, const Tensor& logits, const Tensor& targets, float scale,
                   const Tensor& losses, const Tensor& dlogits);

}  // namespace cartesian
