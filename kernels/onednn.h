#pragma once
// The only door to oneDNN (onednn.cc): matrix products whose right operand was laid out beforehand,
// that layout, and products of weight gradients. Internal to kernels; models use gemm.h.
// Thread-safe: primitives are immutable and shared by the whole process in a bounded cache,
// everything that a call writes is the caller's. OpenMP threads: context.threads, whatever the
// calling thread's setting, which is put back afterwards; one within a parallel region; never more
// than OMP_THREAD_LIMIT.

#include <cstddef>
#include <cstdint>

#include "base/context.h"

namespace cartesian::onednn {

/// Whether this processor multiplies matrices of `dtype` well here: float32 needs AVX-512, without
/// which a sum may be split among threads, and bfloat16 its instructions, without which it is slow
/// or impossible. Where not, see block_gemm.h.
bool multiplies(DType dtype);

/// C [m, n] = A [m, k] B [k, n]; A row-major, B packed, C row-major.
struct Matmul {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  DType inputs = DType::f32;  ///< of A and B: float32 or bfloat16
  DType output = DType::f32;  ///< of C: float32, or the inputs' dtype
};

/// Each element is summed in order of k in float32: the same bits whatever context.threads is.
/// Sizes may be zero.
void matmul(const Context& context, const Matmul& sizes, const void* a, const void* packed_b,
            void* c);

/// Bytes of a packed B [k, n] of `dtype`. Its layout depends on these three alone.
std::size_t packed_bytes(DType dtype, std::int64_t k, std::int64_t n);
enum class Source { plain, transposed };
/// Packs B [k, n], given as `b` [k, n] or as its transpose [n, k], of float32 or `dtype`, into
/// `packed`, 64-byte aligned.
void pack(const Context& context, const Tensor& b, Source source, DType dtype, void* packed);

/// The most rows that add_transposed_product() takes: beyond, oneDNN may not sum them in one go
/// (2.6 does not for bfloat16 and 1,559 rows), and so in an order that may depend on the threads.
inline constexpr std::int64_t kMaxSummedRows = 1024;
/// C [m, n] += A^T B for A [rows, m] and B [rows, n] of one dtype, C float32. The sum over rows is
/// made in float32 and in order, then added to C: the same bits whatever context.threads is.
void add_transposed_product(const Context& context, const Tensor& a, const Tensor& b,
                            const Tensor& c);

inline constexpr std::int64_t kMaxPrimitives = 1024;
struct CacheState {
  std::int64_t primitives = 0;  ///< cached now, never more than kMaxPrimitives
  std::int64_t made = 0;        ///< since the process began
};
CacheState cache_state();

}  // namespace cartesian::onednn
