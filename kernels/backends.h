#pragma once
// The per-device halves of the ops that run on CPU and CUDA. Arguments have been checked by the
// op's x.cc; contracts are those of the op's public header. Where there is no nvcc, no_cuda.cc
// defines the cuda functions: they throw ConfigError.

#include "base/context.h"

namespace cartesian {

namespace cpu {

void permute_rows(const Context& context, const Tensor& x, const Tensor& source, const Tensor& y);
void unpermute_rows(const Context& context, const Tensor& y, const Tensor& positions,
                    const Tensor& weights, const Tensor& out);
void rms_norm_forward(const Context& context, const Tensor& x, const Tensor& weight, float eps,
                      const Tensor& y, const Tensor& inv_rms);
void rms_norm_backward(const Context& context, const Tensor& x, const Tensor& weight,
                       const Tensor& inv_rms, const Tensor& dy, const Tensor& dx,
                       const Tensor& dweight);

}  // namespace cpu

namespace cuda {

void permute_rows(const Context& context, const Tensor& x, const Tensor& source, const Tensor& y);
void unpermute_rows(const Context& context, const Tensor& y, const Tensor& positions,
                    const Tensor& weights, const Tensor& out);
void rms_norm_forward(const Context& context, const Tensor& x, const Tensor& weight, float eps,
                      const Tensor& y, const Tensor& inv_rms);
void rms_norm_backward(const Context& context, const Tensor& x, const Tensor& weight,
                       const Tensor& inv_rms, const Tensor& dy, const Tensor& dx,
                       const Tensor& dweight);

}  // namespace cuda

}  // namespace cartesian
