#include "kernels/embedding.h"

#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace cartesian {

namespace {

void check_sizes(const Tensor& ids, const Tensor& table, const Tensor& rows) {
  check(table.shape().rank() == 2 && table.dtype() == DType::f32,
        "embedding needs a float32 table [vocabulary, hidden]");
  check(rows.rows() == ids.numel() && rows.cols() == table.cols(),
        "embedding needs one row of the table's width per id");
  for (const std::int32_t id : ids.span<std::int32_t>()) {
    check(id >= 0 && id < table.rows(), "embedding: id outside the vocabulary");
  }
}

}  // namespace

void embedding_forward(const Context& context, const Tensor& ids, const Tensor& table,
                       const Tensor& out) {
  check_cpu(context, "embedding");
  check_sizes(ids, table, out);
  const auto* id = ids.data<std::int32_t>();
  const auto* weights = table.data<float>();
  const std::int64_t hidden = table.cols();
  dispatch_float(out.dtype(), [&]<class T>(T) {
    T* rows = out.data<T>();
    parallel_blocks(context, out.rows(), rows_per_block(hidden),
                    [=](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t t = begin; t < end; ++t) {
                        const float* from = weights + id[t] * hidden;
                        T* to = rows + t * hidden;
#pragma omp simd
                        for (std::int64_t c = 0; c < hidden; ++c) {
                          to[c] = from_float<T>(from[c]);
                        }
                      }
                    });
  });
}

void embedding_backward(const Context& context, const Tensor& ids, const Tensor& dout,
                        const Tensor& dtable) {
  check_cpu(context, "embedding");
  check_sizes(ids, dtable, dout);
  const auto* id = ids.data<std::int32_t>();
  auto* sums = dtable.data<float>();
  const std::int64_t hidden = dtable.cols();
  const std::int64_t tokens = dout.rows();
  // Each thread owns columns, so that every element is summed in the tokens' order.
  constexpr std::int64_t kColumns = 128;
  dispatch_float(dout.dtype(), [&]<class T>(T) {
    const T* rows = dout.data<T>();
    parallel_blocks(context, hidden, kColumns, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = 0; t < tokens; ++t) {
        const T* from = rows + t * hidden;
        float* to = sums + id[t] * hidden;
#pragma omp simd
        for (std::int64_t c = begin; c < end; ++c) {
          to[c] += to_float(from[c]);
        }
      }
    });
  });
}

}  // namespace cartesian
