#pragma once
// Row movements on either side of an exchange. CPU and CUDA.

#include "base/context.h"

namespace cartesian {

/// y[i] = x[source[i]], or zeros where source[i] is negative. x [n, hidden], y [m, hidden] of one
/// dtype (float32 or bfloat16), source [m] int32.
void permute_rows(const Context& context, const Tensor& x, const Tensor& source, const Tensor& y);

/// out[t] = sum over j of weights[t, j] * y[positions[t, j]], in order of j, accumulated in
/// float32; negative positions are skipped. positions [n, k] int32; weights [n, k] float32, or
/// undefined for all one; out [n, hidden].
void unpermute_rows(const Context& context, const Tensor& y, const Tensor& positions,
                    const Tensor& weights, const Tensor& out);

}  // namespace cartesian
