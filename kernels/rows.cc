#include "kernels/rows.h"

#include <algorithm>

#include "base/check.h"
#include "base/index.h"
#include "kernels/backends.h"

namespace cartesian {

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
  check(from.size() == to.size(), "copy_rows needs a source for every row");
  if (to.empty() || row_bytes == 0) {
    return;
  }
  switch (context.device) {
    case Device::cpu:
      return cpu::copy_rows(context, from, to, row_bytes);
    case Device::cuda:
      return cuda::copy_rows(context, from, to, row_bytes);
  }
}

void sum_rows(const Context& context, DType dtype, std::int64_t cols,
              std::span<const std::int64_t> begins, RowSources terms, RowTargets to) {
  check(dtype == DType::f32 || dtype == DType::bf16, "sum_rows needs float32 or bfloat16 rows");
  check(begins.size() == to.size() + 1, "sum_rows needs the bounds of every row's terms");
  check(begins.front() >= 0 && std::ranges::is_sorted(begins) &&
            as_index(begins.back()) <= terms.size(),
        "sum_rows needs bounds within the terms, in order");
  if (to.empty() || cols == 0) {
    return;
  }
  switch (context.device) {
    case Device::cpu:
      return cpu::sum_rows(context, dtype, cols, begins, terms, to);
    case Device::cuda:
      return cuda::sum_rows(context, dtype, cols, begins, terms, to);
  }
}

}  // namespace cartesian
