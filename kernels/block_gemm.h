#pragma once
// Matrix products in blocks that fit in the caches, in float32, for the dtypes in which oneDNN has
// no good kernel on this processor: without AVX-512 it multiplies no bfloat16, and may split a
// float32 sum among threads. Operands are laid out panel by panel (Goto and van de Geijn 2008),
// which is also where bfloat16 becomes float32 and a transposed operand turns. Internal to kernels;
// models use gemm.h. Thread-safe.

#include <cstddef>
#include <cstdint>

#include "base/context.h"

namespace cartesian::block_gemm {

enum class Order { plain, transposed };

/// C [m, n] = A [m, k] B [k, n], or C += A B. B was packed; C is row-major.
struct Product {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  DType a = DType::f32;          ///< of A: float32 or bfloat16
  Order a_order = Order::plain;  ///< A is given as [m, k], or as its transpose [k, m]
  DType c = DType::f32;          ///< of C: float32, or bfloat16 if not accumulating
  bool accumulate = false;
};

/// Each element is summed in an order that k alone fixes: the same bits whatever context.threads
/// and the other sizes are. Sizes may be zero.
void multiply(const Context& context, const Product& product, const void* a, const float* packed_b,
              void* c);

/// Floats of a packed B [k, n].
std::int64_t packed_floats(std::int64_t k, std::int64_t n);
/// Packs B [k, n], float32 or bfloat16, given as `b` [k, n] or as its transpose [n, k]. Values are
/// rounded to `dtype` first.
void pack(const Context& context, const Tensor& b, Order order, DType dtype, float* packed);

}  // namespace cartesian::block_gemm
