#pragma once
// Rotary position embedding (Su et al., arXiv 2104.09864) in LLaMA's half-split form: element i of
// a head turns with element i + head_dim / 2 by the angle position * theta^(-2 i / head_dim).

#include "base/context.h"

namespace cartesian {

/// Cosines and sines for positions [0, length), float32 [length, head_dim / 2] each.
struct RopeTable {
  Tensor cosines;
  Tensor sines;
};
/// The table's memory comes from `arena`.
RopeTable make_rope_table(Arena& arena, std::int64_t length, std::int64_t head_dim, float theta);

/// Rotates queries and keys in place: qkv [tokens, 3, heads, head_dim], float32 or bfloat16. Token
/// t has position t modulo `length`. `inverse` turns back, which is what backward does to the
/// gradient.
void rope(const Context& context, const RopeTable& table, std::int64_t length, const Tensor& qkv,
          bool inverse);

}  // namespace cartesian
