#pragma once
// The one way in which an op is split over threads. Blocks are fixed by the caller's sizes, never
// by the number of threads, so that a block's arithmetic (and its scalar tail) is always the same.

#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "base/context.h"

namespace cartesian {

/// Calls body(begin, end) for each of the ranges [0, block), [block, 2 * block), ... of [0, count),
/// consecutive ranges on one thread. `body` must not throw.
template <class Body>
void parallel_blocks(const Context& context, std::int64_t count, std::int64_t block,
                     const Body& body) {
  const std::int64_t blocks = (count + block - 1) / block;
  if (context.threads <= 1 || blocks <= 1) {
    for (std::int64_t b = 0; b < blocks; ++b) {
      body(b * block, std::min(count, (b + 1) * block));
    }
    return;
  }
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (std::int64_t b = 0; b < blocks; ++b) {
    body(b * block, std::min(count, (b + 1) * block));
  }
}

/// Calls body(task, thread) for every task of [0, count), each thread taking the next one when it
/// is free: for tasks of unequal cost whose results do not overlap. thread < context.threads.
/// `body` must not throw.
template <class Body>
void parallel_tasks(const Context& context, std::int64_t count, const Body& body) {
  if (context.threads <= 1 || count <= 1) {
    for (std::int64_t task = 0; task < count; ++task) {
      body(task, 0);
    }
    return;
  }
#pragma omp parallel for num_threads(context.threads) schedule(dynamic)
  for (std::int64_t task = 0; task < count; ++task) {
    body(task, omp_get_thread_num());
  }
}

/// Rows per block such that a block has about `elements` elements; at least one.
inline std::int64_t rows_per_block(std::int64_t cols, std::int64_t elements = 8192) {
  return std::max<std::int64_t>(1, elements / std::max<std::int64_t>(1, cols));
}

}  // namespace cartesian
