#include <algorithm>
#include <cstring>

#include "base/index.h"
#include "kernels/backends.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace cartesian::cpu {

namespace {

// Columns of three and more terms summed at once: the float32 sums stay in the first-level cache.
constexpr std::int64_t kColumns = 2048;

template <class A, class B, class To>
void sum_two(const A* a, const B* b, std::int64_t cols, To* to) {
#pragma omp simd
  for (std::int64_t c = 0; c < cols; ++c) {
    to[c] = from_float<To>(to_float(a[c]) + to_float(b[c]));
  }
}

// The first two terms start the sums and the last one ends them: two passes over them less.
template <class T>
void sum_many(RowSources terms, std::int64_t cols, T* to) {
  alignas(64) float sums[kColumns];
  for (std::int64_t begin = 0; begin < cols; begin += kColumns) {
    const std::int64_t columns = std::min(kColumns, cols - begin);
    const auto row = [&](std::size_t term) {
      return reinterpret_cast<const T*>(terms[term]) + begin;
    };
    sum_two(row(0), row(1), columns, sums);
    const std::size_t last = terms.size() - 1;
    for (std::size_t term = 2; term < last; ++term) {
      sum_two(sums, row(term), columns, sums);
    }
    sum_two(sums, row(last), columns, to + begin);
  }
}

template <class T>
void sum_row(RowSources terms, std::int64_t cols, std::byte* to) {
  const std::size_t row_bytes = as_index(cols) * sizeof(T);
  if (terms.empty()) {
    std::memset(to, 0, row_bytes);
  } else if (terms.size() == 1) {
    if (terms[0] != to) {
      std::memcpy(to, terms[0], row_bytes);
    }
  } else if (terms.size() == 2) {
    sum_two(reinterpret_cast<const T*>(terms[0]), reinterpret_cast<const T*>(terms[1]), cols,
            reinterpret_cast<T*>(to));
  } else {
    sum_many(terms, cols, reinterpret_cast<T*>(to));
  }
}

}  // namespace

void copy_rows(const Context& context, RowSources from, RowTargets to, std::size_t row_bytes) {
  parallel_blocks(context, static_cast<std::int64_t>(to.size()),
                  rows_per_block(static_cast<std::int64_t>(row_bytes / sizeof(float))),
                  [=](std::int64_t begin, std::int64_t end) {
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
  dispatch_float(dtype, [&]<class T>(T) {
    parallel_blocks(
        context, static_cast<std::int64_t>(to.size()), rows_per_block(cols),
        [=](std::int64_t begin, std::int64_t end) {
          for (std::size_t i = as_index(begin); i < as_index(end); ++i) {
            if (to[i] != nullptr) {
              sum_row<T>(terms.subspan(as_index(begins[i]), as_index(begins[i + 1] - begins[i])),
                         cols, to[i]);
            }
          }
        });
  });
}

}  // namespace cartesian::cpu
