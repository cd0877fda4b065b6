#pragma once
// RMSNorm (Zhang and Sennrich, arXiv 1910.07467): y = weight * x / sqrt(mean(x^2) + eps). CPU and
// CUDA.

#include "base/context.h"

namespace cartesian {

/// x, y [rows, hidden] of one dtype (float32 or bfloat16); weight [hidden] float32; inv_rms [rows]
/// float32 is saved for backward. Zero rows is allowed.
void rms_norm_forward(const Context& context, const Tensor& x, const Tensor& weight, float eps,
                      const Tensor& y, const Tensor& inv_rms);

/// From dy [rows, hidden]: dx += the gradient (so that a residual's gradient may be in dx already)
/// and dweight [hidden] float32 += its gradient. dx has x's dtype. Same bits whatever
/// context.threads is.
void rms_norm_backward(const Context& context, const Tensor& x, const Tensor& weight,
                       const Tensor& inv_rms, const Tensor& dy, const Tensor& dx,
                       const Tensor& dweight);

}  // namespace cartesian
