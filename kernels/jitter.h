#pragma once
// Multiplicative noise on a router's input, so that tokens explore other experts ("input jitter":
// Fedus, Zoph, Shazeer, "Switch Transformers", arXiv 2101.03961; Mesh TensorFlow's
// multiplicative_jitter). The noise is counter-based: it depends on what a row is, not on where or
// with which other rows it is computed.

#include <cstdint>
#include <span>

#include "base/context.h"

namespace cartesian {

struct Jitter {
  float epsilon = 0;           ///< factors lie in [1 - epsilon, 1 + epsilon)
  std::uint64_t key = 0;       ///< see random_key()
  std::int64_t first_row = 0;  ///< number of row 0 among all the rows of this key
  /// [rows] if not empty: the number of row r is first_row + rows[r], not first_row + r.
  std::span<const std::int32_t> rows = {};
};

/// out[r, c] = x[r, c] * (1 + epsilon * (2 u - 1)), u = word / 2^32 rounded down to 24 bits, word =
/// philox(key, number of r, c / 4)[c % 4]. float32; may be in place. The same with a gradient in
/// place of x is its backward.
void apply_jitter(const Context& context, const Jitter& jitter, const Tensor& x, const Tensor& out);

}  // namespace cartesian
