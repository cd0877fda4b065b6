#pragma once
// Attention's arithmetic on one pair of blocks, kBlock queries against kBlock keys, in float32
// copies that fit in the cache. A block of rows is [kBlock, padded head_dim], its transpose
// [head_dim, kBlock], both zero beyond the valid rows and columns. On the diagonal (queries and
// keys are the same positions) every product leaves out what the causal mask would zero, strip by
// strip.

#include <cstring>

#include "base/bfloat16.h"
#include "kernels/strip_product.h"

namespace cartesian {

inline constexpr std::int64_t kAttentionBlock = 64;

struct BlockPair {
  bool diagonal;
  std::int64_t queries;  ///< valid rows of the block of queries
  std::int64_t head_dim;

  std::int64_t padded_dim() const { return pad_to_lanes(head_dim); }
  /// Score columns that are computed for the strip of rows that starts at `row`.
  std::int64_t columns(std::int64_t row) const {
    return diagonal ? pad_to_lanes(row + kStripRows) : kAttentionBlock;
  }
};

/// One head's rows in a larger matrix.
template <class T>
struct HeadRows {
  T* data;
  std::int64_t stride;
};

/// to = scale * rows [0, count), as a block of rows.
template <class T>
void pack_rows(HeadRows<const T> from, std::int64_t count, std::int64_t head_dim, float scale,
               float* to) {
  const std::int64_t padded = pad_to_lanes(head_dim);
  std::memset(to, 0, static_cast<std::size_t>(kAttentionBlock * padded) * sizeof(float));
  for (std::int64_t r = 0; r < count; ++r) {
    const T* row = from.data + r * from.stride;
#pragma omp simd
    for (std::int64_t d = 0; d < head_dim; ++d) {
      to[r * padded + d] = scale * to_float(row[d]);
    }
  }
}

/// to = rows [0, count), transposed.
template <class T>
void pack_transposed(HeadRows<const T> from, std::int64_t count, std::int64_t head_dim, float* to) {
  if (count < kAttentionBlock) {
    std::memset(to, 0, static_cast<std::size_t>(kAttentionBlock * head_dim) * sizeof(float));
  }
  constexpr std::int64_t kTile = 16;  // a tile of the source stays in the cache
  for (std::int64_t begin = 0; begin < head_dim; begin += kTile) {
    const std::int64_t end = begin + kTile < head_dim ? begin + kTile : head_dim;
    for (std::int64_t r = 0; r < count; ++r) {
      const T* row = from.data + r * from.stride;
      for (std::int64_t d = begin; d < end; ++d) {
        to[d * kAttentionBlock + r] = to_float(row[d]);
      }
    }
  }
}

template <class T>
void unpack_rows(const float* from, std::int64_t count, std::int64_t head_dim, float scale,
                 HeadRows<T> to) {
  const std::int64_t padded = pad_to_lanes(head_dim);
  for (std::int64_t r = 0; r < count; ++r) {
    T* row = to.data + r * to.stride;
#pragma omp simd
    for (std::int64_t d = 0; d < head_dim; ++d) {
      row[d] = from_float<T>(scale * from[r * padded + d]);
    }
  }
}

/// scores [kBlock, kBlock] = rows * transposed: queries by keys, or output gradients by values.
inline void block_scores(const BlockPair& pair, const float* rows, const float* transposed,
                         float* scores) {
  const std::int64_t padded = pair.padded_dim();
  for (std::int64_t r = 0; r < pair.queries; r += kStripRows) {
    strip_product({rows + r * padded, padded, 1}, transposed, kAttentionBlock, pair.head_dim,
                  pair.columns(r), scores + r * kAttentionBlock, kAttentionBlock, false);
  }
}

/// out += scores * rows: a sum over keys for each query.
inline void add_over_keys(const BlockPair& pair, const float* scores, const float* rows,
                          float* out) {
  const std::int64_t padded = pair.padded_dim();
  for (std::int64_t r = 0; r < pair.queries; r += kStripRows) {
    const std::int64_t keys = pair.diagonal ? r + kStripRows : kAttentionBlock;
    strip_product({scores + r * kAttentionBlock, kAttentionBlock, 1}, rows, padded, keys, padded,
                  out + r * padded, padded, true);
  }
}

/// out += transpose(scores) * rows: a sum over queries for each key.
inline void add_over_queries(const BlockPair& pair, const float* scores, const float* rows,
                             float* out) {
  const std::int64_t padded = pair.padded_dim();
  const std::int64_t keys = pair.diagonal ? pair.queries : kAttentionBlock;
  for (std::int64_t c = 0; c < keys; c += kStripRows) {
    const std::int64_t first = pair.diagonal ? c : 0;
    strip_product({scores + first * kAttentionBlock + c, 1, kAttentionBlock}, rows + first * padded,
                  padded, pair.queries - first, padded, out + c * padded, padded, true);
  }
}

}  // namespace cartesian
