#pragma once
// Token embedding: a table look-up and its gradient.

#include "base/context.h"

namespace cartesian {

/// out[t] = table[ids[t]]. ids [tokens] int32 in [0, vocabulary), table [vocabulary, hidden]
/// float32, out [tokens, hidden] float32 or bfloat16. An id out of range is a bug.
void embedding_forward(const Context& context, const Tensor& ids, const Tensor& table,
                       const Tensor& out);

/// dtable[ids[t]] += dout[t], in order of t: same bits whatever context.threads is. dtable float32.
void embedding_backward(const Context& context, const Tensor& ids, const Tensor& dout,
                        const Tensor& dtable);

}  // namespace cartesian
