#pragma once
// A peer to measure against: matrix products straight through oneDNN, each the fastest of the ways
// in which its best user could write it, found by trying them all on this machine. Shares no code
// with kernels/.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace cartesian::bench {

/// Something to be timed. What it needs, and what is prepared once per step, it owns.
struct Product {
  std::function<void()> run;
  std::string way;  ///< how, in a few words
};

/// The dtype in which the peer multiplies matrices of `dtype`: itself, or float32 where oneDNN has
/// no bfloat16 for this processor.
DType peer_dtype(DType dtype);

/// `count` products alike, with operands of their own: y [m, n] = x [m, k] times a weight that was
/// packed beforehand, or lies as it is.
std::vector<Product> peer_products(DType dtype, std::int64_t m, std::int64_t n, std::int64_t k,
                                   std::int64_t count);

/// `count` times: for each of `gradients` products dw [n, k] += dy^T x with dy [rows, n], and x
/// [rows, k] shared by them, so that it is packed once. Laying out operands is timed: they are new
/// in every step.
std::vector<Product> peer_weight_gradients(DType dtype, std::int64_t rows, std::int64_t n,
                                           std::int64_t k, int gradients, std::int64_t count);

}  // namespace cartesian::bench
