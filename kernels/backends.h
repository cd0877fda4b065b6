#pragma once
// The per-device halves of the ops that run on CPU and CUDA. Arguments have been checked by the
// op's x.cc; contracts are those of the op's public header. Where there is no nvcc, no_cuda.cc
// defines the cuda functions: they throw ConfigError.

#include "base/context.h"
#include "kernels/rows.h"

namespace cartesian {

namespace cpu {

void rms_norm_forward(const Context& context, const Tensor& x, const Tensor& weight, float eps,
                      const Tensor& y, const Tensor& inv_rms);
void rms_norm_backward(const Context& context, const Tensor& x, const Tensor& weight,
                       const Tensor& inv_rms, const Tensor& dy, const Tensor& dx,
                       const Tensor& dweight);
void copy_rows(const Context& context, RowSources from, RowTargets to, std::size_t row_bytes);
void sum_rows(const Context& context, DType dtype, std::int64_t cols,
              std::span<const std::int64_t> begins, RowSources terms, RowTargets to);

}  // namespace cpu

namespace cuda {

void rms_norm_forward(const Context& context, const Tensor& x, const Tensor& weight, float eps,
                      const Tensor& y, const Tensor& inv_rms);
void rms_norm_backward(const Context& context, const Tensor& x, const Tensor& weight,
                       const Tensor& inv_rms, const Tensor& dy, const Tensor& dx,
                       const Tensor& dweight);
void copy_rows(const Context& context, RowSources from, RowTargets to, std::size_t row_bytes);
void sum_rows(const Context& context, DType dtype, std::int64_t cols,
              std::span<const std::int64_t> begins, RowSources terms, RowTargets to);

}  // namespace cuda

}  // namespace cartesian
