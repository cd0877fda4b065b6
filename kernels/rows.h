#pragma once
// Rows wherever they lie: what an exchange copies and sums between tensors and message buffers.
// CPU and CUDA: rows are in the context's device's memory, lists of them in the host's, needed
// until the call returns.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/context.h"

namespace cartesian {

/// Addresses of rows, aligned to an element. Null: no row.
using RowSources = std::span<const std::byte* const>;
using RowTargets = std::span<std::byte* const>;

/// Addresses of a tensor's rows.
std::vector<std::byte*> row_targets(const Tensor& rows);
std::vector<const std::byte*> row_sources(const Tensor& rows);

/// *to[i] = *from[i], or zeros where from[i] is null; nothing where to[i] is null or the same row.
/// Rows of `to` are distinct and none of `from`, but at the same i.
void copy_rows(const Context& context, RowSources from, RowTargets to, std::size_t row_bytes);

/// *to[i] = sum of *terms[j], begins[i] <= j < begins[i + 1], in that order, accumulated in
/// float32 and rounded once; zeros without terms; nothing where to[i] is null. No term is null. A
/// row may be among its own terms, and not among others'. float32 or bfloat16.
void sum_rows(const Context& context, DType dtype, std::int64_t cols,
              std::span<const std::int64_t> begins, RowSources terms, RowTargets to);

}  // namespace cartesian
