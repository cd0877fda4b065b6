#pragma once
// Matrix products through oneDNN. Weights have PyTorch's layout [out, in]; activations are [rows,
// features]. float32 or bfloat16 in, float32 accumulation. Any number of rows, also zero; multiples
// of 16 are fastest. A row of y or dx has the same bits whatever other rows it is computed with,
// and all results whatever context.threads is. Thread-safe: ranks that are threads of one process
// may share weights. OpenMP threads: context.threads. Errors: what oneDNN refuses (memory, mostly)
// throws Error.

#include <cstdint>
#include <memory>

#include "base/context.h"

namespace cartesian {

/// One weight matrix, converted to the compute dtype and laid out as oneDNN wants it, for both of
/// its products. Made once per optimizer step, used by every micro-batch of it. Movable.
class PackedWeight {
 public:
  PackedWeight();
  ~PackedWeight();
  PackedWeight(PackedWeight&&) noexcept;
  PackedWeight& operator=(PackedWeight&&) noexcept;

  /// Packs `weight` [out, in] float32 for products in `dtype`, reusing this object's memory when
  /// sizes have not changed. `for_backward` false leaves out what linear_backward_input() needs.
  void pack(const Context& context, const Tensor& weight, DType dtype, bool for_backward = true);

  std::int64_t out_features() const;
  std::int64_t in_features() const;
  DType dtype() const;
  std::size_t bytes() const;

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

/// y = x W^T. x [rows, in] and y [rows, out] in the weight's dtype; y may also be float32.
void linear_forward(const Context& context, const Tensor& x, const PackedWeight& weight,
                    const Tensor& y);
/// dx = dy W. dy [rows, out] and dx [rows, in] in the weight's dtype; dx may also be float32.
void linear_backward_input(const Context& context, const Tensor& dy, const PackedWeight& weight,
                           const Tensor& dx);
/// dw += dy^T x. dy [rows, out] and x [rows, in] of one dtype, dw [out, in] float32.
void linear_backward_weight(const Context& context, const Tensor& dy, const Tensor& x,
                            const Tensor& dw);

}  // namespace cartesian
