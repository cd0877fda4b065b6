#include "kernels/rows.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/index.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace cartesian {

namespace {

// Columns summed at once: the float32 sums stay in the first-level cache.
constexpr std::int64_t kColumns = 1024;

template <class T>
void sum_row(RowSources terms, std::int64_t cols, std::byte* to) {
  alignas(64) float sums[kColumns];
  for (std::int64_t begin = 0; begin < cols; begin += kColumns) {
    const std::int64_t columns = std::min(kColumns, cols - begin);
    for (std::size_t term = 0; term < terms.size(); ++term) {
      const T* row = reinterpret_cast<const T*>(terms[term]) + begin;
      if (term == 0) {
#pragma omp simd
        for (std::int64_t c = 0; c < columns; ++c) {
          sums[c] = to_float(row[c]);
        }
      } else {
#pragma omp simd
        for (std::int64_t c = 0; c < columns; ++c) {
          sums[c] += to_float(row[c]);
        }
      }
    }
    T* out = reinterpret_cast<T*>(to) + begin;
#pragma omp simd
    for (std::int64_t c = 0; c < columns; ++c) {
      out[c] = from_float<T>(sums[c]);
    }
  }
}

}  // namespace

std::vector<std::byte*> row_targets(const Tensor& rows) {
  std::vector<std::byte*> addresses(as_index(rows.rows()));
  const std::size_t bytes = as_index(rows.cols()) * size_of(rows.dtype());
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    addresses[i] = static_cast<std::byte*>(rows.raw()) + i * bytes;
  }
  return addresses;
}

std::vector<const std::byte*> row_sources(const Tensor& rows) {
  const std::vector<std::byte*> addresses = row_targets(rows);
  return {addresses.begin(), addresses.end()};
}

void copy_rows(const Context& context, RowSources from, RowTargets to, std::size_t row_bytes) {
  check_cpu(context, "copy_rows");
  check(from.size() == to.size(), "copy_rows needs a source for every row");
  parallel_blocks(context, static_cast<std::int64_t>(to.size()),
                  rows_per_block(static_cast<std::int64_t>(row_bytes / sizeof(float))),
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::size_t i = as_index(begin); i < as_index(end); ++i) {
                      if (to[i] == nullptr || to[i] == from[i]) {
                        continue;
                      }
                      if (from[i] == nullptr) {
                        std::memset(to[i], 0, row_bytes);
                      } else {
                        std::memcpy(to[i], from[i], row_bytes);
                      }
                    }
                  });
}

void sum_rows(const Context& context, DType dtype, std::int64_t cols,
              std::span<const std::int64_t> begins, RowSources terms, RowTargets to) {
  check_cpu(context, "sum_rows");
  check(begins.size() == to.size() + 1, "sum_rows needs the bounds of every row's terms");
  const std::size_t row_bytes = as_index(cols) * size_of(dtype);
  dispatch_float(dtype, [&]<class T>(T) {
    parallel_blocks(context, static_cast<std::int64_t>(to.size()), rows_per_block(cols),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::size_t i = as_index(begin); i < as_index(end); ++i) {
                        const RowSources of_row =
                            terms.subspan(as_index(begins[i]), as_index(begins[i + 1] - begins[i]));
                        if (to[i] == nullptr || (of_row.size() == 1 && of_row[0] == to[i])) {
                          continue;
                        }
                        if (of_row.empty()) {
                          std::memset(to[i], 0, row_bytes);
                        } else if (of_row.size() == 1) {
                          std::memcpy(to[i], of_row[0], row_bytes);
                        } else {
                          sum_row<T>(of_row, cols, to[i]);
                        }
                      }
                    });
  });
}

}  // namespace cartesian
