#include <cstring>

#include "kernels/backends.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace cartesian::cpu {

namespace {

// Columns summed at once: the float32 sums stay in the first-level cache.
constexpr std::int64_t kColumns = 2048;

// sums[c] = scale * row[c], or += unless `first`.
template <class T>
void accumulate(const T* row, float scale, std::int64_t columns, bool first, float* sums) {
  if (first) {
#pragma omp simd
    for (std::int64_t c = 0; c < columns; ++c) {
      sums[c] = scale * to_float(row[c]);
    }
  } else {
#pragma omp simd
    for (std::int64_t c = 0; c < columns; ++c) {
      sums[c] += scale * to_float(row[c]);
    }
  }
}

template <class T>
struct Unpermute {
  const T* y;
  const std::int32_t* positions;
  const float* weights;  // null: all one
  T* out;
  std::int64_t rows_of_y;
  std::int64_t hidden;
  std::int64_t k;

  void row(std::int64_t t) const {
    alignas(64) float sums[kColumns];
    for (std::int64_t begin = 0; begin < hidden; begin += kColumns) {
      const std::int64_t columns = std::min(kColumns, hidden - begin);
      bool first = true;
      for (std::int64_t j = t * k; j < (t + 1) * k; ++j) {
        if (positions[j] < 0) {
          continue;
        }
        check(positions[j] < rows_of_y, "unpermute_rows: position out of range");
        accumulate(y + positions[j] * hidden + begin, weights ? weights[j] : 1.0F, columns, first,
                   sums);
        first = false;
      }
      if (first) {
        std::memset(sums, 0, sizeof(sums));
      }
      T* to = out + t * hidden + begin;
#pragma omp simd
      for (std::int64_t c = 0; c < columns; ++c) {
        to[c] = from_float<T>(sums[c]);
      }
    }
  }
};

}  // namespace

void permute_rows(const Context& context, const Tensor& x, const Tensor& source, const Tensor& y) {
  const auto* from = static_cast<const std::byte*>(x.raw());
  auto* to = static_cast<std::byte*>(y.raw());
  const auto* rows = source.data<std::int32_t>();
  const std::int64_t count = x.rows();
  const auto row_bytes = static_cast<std::size_t>(y.cols()) * size_of(y.dtype());
  parallel_blocks(
      context, y.rows(), rows_per_block(y.cols()), [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          std::byte* row = to + static_cast<std::size_t>(i) * row_bytes;
          if (rows[i] < 0) {
            std::memset(row, 0, row_bytes);
            continue;
          }
          check(rows[i] < count, "permute_rows: source out of range");
          std::memcpy(row, from + static_cast<std::size_t>(rows[i]) * row_bytes, row_bytes);
        }
      });
}

void unpermute_rows(const Context& context, const Tensor& y, const Tensor& positions,
                    const Tensor& weights, const Tensor& out) {
  dispatch_float(y.dtype(), [&]<class T>(T) {
    const Unpermute<T> op{.y = y.data<T>(),
                          .positions = positions.data<std::int32_t>(),
                          .weights = weights.defined() ? weights.data<float>() : nullptr,
                          .out = out.data<T>(),
                          .rows_of_y = y.rows(),
                          .hidden = out.cols(),
                          .k = positions.cols()};
    parallel_blocks(context, out.rows(), rows_per_block(out.cols()),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t t = begin; t < end; ++t) {
                        op.row(t);
                      }
                    });
  });
}

}  // namespace cartesian::cpu
