#include "kernels/rope.h"

#include <cmath>

#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace cartesian {

namespace {

// One head: (a, b) turns to (a cos - b sin, b cos + a sin).
template <class T>
void rotate(T* head, const float* cosines, const float* sines, float sign, std::int64_t half) {
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = to_float(head[i]);
    const float b = to_float(head[half + i]);
    const float sine = sign * sines[i];
    head[i] = from_float<T>(a * cosines[i] - b * sine);
    head[half + i] = from_float<T>(b * cosines[i] + a * sine);
  }
}

}  // namespace

RopeTable make_rope_table(Arena& arena, std::int64_t length, std::int64_t head_dim, float theta) {
  check(head_dim > 0 && head_dim % 2 == 0, "rope needs an even head_dim");
  const std::int64_t half = head_dim / 2;
  const RopeTable table{.cosines = arena.tensor(DType::f32, {length, half}),
                        .sines = arena.tensor(DType::f32, {length, half})};
  for (std::int64_t i = 0; i < half; ++i) {
    const double frequency =
        std::pow(static_cast<double>(theta), -2.0 * static_cast<double>(i) / head_dim);
    for (std::int64_t p = 0; p < length; ++p) {
      const double angle = static_cast<double>(p) * frequency;
      table.cosines.data<float>()[p * half + i] = static_cast<float>(std::cos(angle));
      table.sines.data<float>()[p * half + i] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

void rope(const Context& context, const RopeTable& table, std::int64_t length, const Tensor& qkv,
          bool inverse) {
  check_cpu(context, "rope");
  check(qkv.shape().rank() == 4 && qkv.dim(1) == 3, "rope needs qkv [tokens, 3, heads, head_dim]");
  const std::int64_t heads = qkv.dim(2);
  const std::int64_t head_dim = qkv.dim(3);
  check(table.cosines.rows() >= length && 2 * table.cosines.cols() == head_dim,
        "the rope table does not fit the queries");
  check(length > 0 || qkv.rows() == 0, "rope needs a length");
  const auto* cosines = table.cosines.data<float>();
  const auto* sines = table.sines.data<float>();
  const float sign = inverse ? -1.0F : 1.0F;
  const std::int64_t half = head_dim / 2;
  dispatch_float(qkv.dtype(), [&]<class T>(T) {
    T* data = qkv.data<T>();
    parallel_blocks(context, qkv.rows(), rows_per_block(2 * heads * head_dim),
                    [=](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t t = begin; t < end; ++t) {
                        const std::int64_t row = t % length * half;
                        for (std::int64_t h = 0; h < 2 * heads; ++h) {  // queries, then keys
                          rotate(data + (t * 3 * heads + h) * head_dim, cosines + row, sines + row,
                                 sign, half);
                        }
                      }
                    });
  });
}

}  // namespace cartesian
