#pragma once
// Attention's arithmetic on one pair of blocks, kBlock queries against kBlock keys, in float32
// copies that fit in the cache. A block of rows is [kBlock, padded head_dim], its transpose
// [head_dim, kBlock], both zero beyond the valid rows and columns. On the diagonal (queries and
// keys are the same positions) every product leaves out what the causal mask would zero, strip by
// strip.

#include <algorithm>
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
  /// Score columns that are computed for `row`, as for all rows of its strip.
  std::int64_t columns(std::int64_t row) const {
    return diagonal ? pad_to_lanes(row / kStripRows * kStripRows + kStripRows) : kAttentionBlock;
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
  const auto row_bytes = head_dim * static_cast<std::int64_t>(sizeof(T));
  std::memset(to, 0, static_cast<std::size_t>(kAttentionBlock * padded) * sizeof(float));
  constexpr std::int64_t kAhead = 8;  // rows lie too far apart for the hardware to foresee them
  for (std::int64_t r = 0; r < count; ++r) {
    const T* row = from.data + r * from.stride;
    if (r + kAhead < count) {
      const auto* ahead = reinterpret_cast<const char*>(row + kAhead * from.stride);
      for (std::int64_t byte = 0; byte < row_bytes; byte += 64) {
        __builtin_prefetch(ahead + byte);
      }
    }
#pragma omp simd
    for (std::int64_t d = 0; d < head_dim; ++d) {
      to[r * padded + d] = scale * to_float(row[d]);
    }
  }
}

/// A block of rows, transposed.
inline void transpose_block(const float* rows, std::int64_t head_dim, float* to) {
  const std::int64_t padded = pad_to_lanes(head_dim);
  for (std::int64_t d = 0; d < head_dim; d += kLanes) {
    const std::int64_t valid = std::min<std::int64_t>(kLanes, head_dim - d);
    for (std::int64_t r = 0; r < kAttentionBlock; r += kLanes) {
      Lanes square[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        square[i] = load_lanes(rows + (r + i) * padded + d);
      }
      transpose_lanes(square);
      for (int i = 0; i < kLanes; ++i) {
        if (i < valid) {
          store_lanes(to + (d + i) * kAttentionBlock + r, square[i]);
        }
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
    strip_product<false>({rows + r * padded, padded, 1}, {transposed, kAttentionBlock},
                         pair.head_dim, pair.columns(r),
                         {scores + r * kAttentionBlock, kAttentionBlock});
  }
}

/// out += scores * rows: a sum over keys for each query.
inline void add_over_keys(const BlockPair& pair, const float* scores, const float* rows,
                          float* out) {
  const std::int64_t padded = pair.padded_dim();
  for (std::int64_t r = 0; r < pair.queries; r += kStripRows) {
    const std::int64_t keys = pair.diagonal ? r + kStripRows : kAttentionBlock;
    strip_product<true>({scores + r * kAttentionBlock, kAttentionBlock, 1}, {rows, padded}, keys,
                        padded, {out + r * padded, padded});
  }
}

/// out += transpose(scores) * rows: a sum over queries for each key.
inline void add_over_queries(const BlockPair& pair, const float* scores, const float* rows,
                             float* out) {
  const std::int64_t padded = pair.padded_dim();
  const std::int64_t keys = pair.diagonal ? pair.queries : kAttentionBlock;
  for (std::int64_t c = 0; c < keys; c += kStripRows) {
    const std::int64_t first = pair.diagonal ? c : 0;
    strip_product<true>({scores + first * kAttentionBlock + c, 1, kAttentionBlock},
                        {rows + first * padded, padded}, pair.queries - first, padded,
                        {out + c * padded, padded});
  }
}

}  // namespace cartesian
