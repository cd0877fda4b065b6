#include "kernels/block_gemm.h"

#include <algorithm>
#include <cstring>

#include "kernels/dispatch.h"
#include "kernels/lanes.h"
#include "kernels/parallel.h"

namespace cartesian::block_gemm {

namespace {

// A tile of C lives in registers: kTileRows * kTileVectors sums, kTileVectors of B and a broadcast
// fill AVX2's 16. A panel of B [kDepth, kTileColumns] fills half of the L1 cache while the panels
// of a block of A [kBlockRows, kDepth], in L2, pass by.
constexpr int kTileRows = 6;
constexpr int kTileVectors = 2;
constexpr std::int64_t kTileColumns = kTileVectors * kLanes;
constexpr std::int64_t kBlockRows = 16 * kTileRows;
constexpr std::int64_t kMaxDepth = 256;
/// Columns that one task computes at least, where rows alone make too few tasks.
constexpr std::int64_t kTaskColumns = 256;

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t round_up(std::int64_t a, std::int64_t b) { return divide_up(a, b) * b; }

/// Depth is cut into equal parts, multiples of kLanes but for the last.
std::int64_t depth_of(std::int64_t k) {
  return round_up(divide_up(k, divide_up(k, kMaxDepth)), kLanes);
}

/// kLanes values as float32.
inline Lanes load_floats(const float* from) { return load_lanes(from); }
inline Lanes load_floats(const bfloat16* from) {
  using Halves [[gnu::vector_size(kLanes * 2), gnu::aligned(2), gnu::may_alias]] = std::uint16_t;
  using Words [[gnu::vector_size(kLanes * 4)]] = std::uint32_t;
  const auto words = __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Words) << 16;
  return reinterpret_cast<const Lanes&>(words);
}

/// A row-major matrix or part of one.
template <class T>
struct View {
  const T* data;
  std::int64_t stride;
  const T* at(std::int64_t row, std::int64_t column) const { return data + row * stride + column; }
};

/// to[p * kWidth + r] = from[p, r]: `depth` rows of `width` <= kWidth columns, the rest zero.
template <int kWidth, class T>
void pack_rows(View<T> from, std::int64_t depth, std::int64_t width, float* to) {
  if (width < kWidth) {
    for (std::int64_t p = 0; p < depth; ++p) {
      for (std::int64_t r = 0; r < kWidth; ++r) {
        to[p * kWidth + r] = r < width ? to_float(*from.at(p, r)) : 0.0F;
      }
    }
    return;
  }
  for (std::int64_t p = 0; p < depth; ++p) {
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kWidth; ++r) {
      to[p * kWidth + r] = to_float(*from.at(p, r));
    }
  }
}

/// to[p * kWidth + r] = from[r, p]: `width` <= kWidth rows of `depth` columns, the rest zero. May
/// write up to kLanes floats more.
template <int kWidth, class T>
void pack_columns(View<T> from, std::int64_t depth, std::int64_t width, float* to) {
  std::int64_t p = 0;
  for (; p + kLanes <= depth; p += kLanes) {
    for (std::int64_t r = 0; r < kWidth; r += kLanes) {
      Lanes square[kLanes];
#pragma GCC unroll 16
      for (std::int64_t i = 0; i < kLanes; ++i) {
        square[i] = i < kWidth - r && r + i < width ? load_floats(from.at(r + i, p)) : Lanes{};
      }
      transpose_lanes(square);
#pragma GCC unroll 16
      for (std::int64_t i = 0; i < kLanes; ++i) {
        // What goes beyond kWidth is overwritten by the next row.
        store_lanes(to + (p + i) * kWidth + r, square[i]);
      }
    }
  }
  for (; p < depth; ++p) {
    for (std::int64_t r = 0; r < kWidth; ++r) {
      to[p * kWidth + r] = r < width ? to_float(*from.at(r, p)) : 0.0F;
    }
  }
}

using Tile = Lanes[kTileRows][kTileVectors];

/// tile = the product of a panel of A and one of B.
inline void multiply_panels(const float* a, const float* b, std::int64_t depth, Tile& tile) {
  Lanes sums[kTileRows][kTileVectors] = {};
#pragma GCC unroll 4
  for (std::int64_t p = 0; p < depth; ++p) {
    const Lanes left = load_lanes(b + p * kTileColumns);
    const Lanes right = load_lanes(b + p * kTileColumns + kLanes);
    for (int r = 0; r < kTileRows; ++r) {
      const float factor = a[p * kTileRows + r];
      sums[r][0] += factor * left;
      sums[r][1] += factor * right;
    }
  }
  std::memcpy(&tile, &sums, sizeof tile);
}

struct Destination {
  float* data;
  std::int64_t stride;
  bool accumulate;
};

/// C = or += tile, of which `rows` x `columns` are valid.
inline void store_tile(const Tile& tile, std::int64_t rows, std::int64_t columns,
                       const Destination& c) {
  for (std::int64_t r = 0; r < rows; ++r) {
    float* to = c.data + r * c.stride;
    if (columns == kTileColumns) {
      for (int v = 0; v < kTileVectors; ++v) {
        Lanes sum = tile[r][v];
        if (c.accumulate) {
          sum += load_lanes(to + v * kLanes);
        }
        store_lanes(to + v * kLanes, sum);
      }
      continue;
    }
    const auto* from = reinterpret_cast<const float*>(&tile[r]);
    for (std::int64_t j = 0; j < columns; ++j) {
      to[j] = (c.accumulate ? to[j] : 0.0F) + from[j];
    }
  }
}

/// Rows and columns of C.
struct Part {
  std::int64_t row, rows, column, columns;
};

template <class A, class C>
struct Multiply {
  Product product;
  const A* a;
  const float* b;
  C* c;

  static constexpr bool kRounds = !std::is_same_v<C, float>;

  std::int64_t scratch_floats(std::int64_t task_columns) const {
    return kBlockRows * (depth_of(product.k) + (kRounds ? task_columns : 0)) + kLanes;
  }

  /// Panels of kTileRows rows of A, one after the other.
  void pack_a(const Part& part, std::int64_t begin, std::int64_t depth, float* to) const {
    for (std::int64_t r = 0; r < part.rows; r += kTileRows) {
      const std::int64_t row = part.row + r;
      const std::int64_t rows = std::min<std::int64_t>(kTileRows, part.rows - r);
      if (product.a_order == Order::plain) {
        pack_columns<kTileRows>(View<A>{a + row * product.k + begin, product.k}, depth, rows,
                                to + r * depth);
      } else {
        pack_rows<kTileRows>(View<A>{a + begin * product.m + row, product.m}, depth, rows,
                             to + r * depth);
      }
    }
  }

  /// C's part, one depth after the other.
  void run(const Part& part, float* scratch) const {
    const std::int64_t step = depth_of(product.k);
    float* sums = scratch + kBlockRows * step + kLanes;
    Destination to{sums, part.columns, product.accumulate};
    if constexpr (!kRounds) {
      to = {c + part.row * product.n + part.column, product.n, product.accumulate};
    }
    for (std::int64_t begin = 0; begin < product.k; begin += step) {
      const std::int64_t depth = std::min(step, product.k - begin);
      pack_a(part, begin, depth, scratch);
      const float* panels = b + begin * round_up(product.n, kTileColumns) + part.column * depth;
      for (std::int64_t j = 0; j < part.columns; j += kTileColumns) {
        for (std::int64_t r = 0; r < part.rows; r += kTileRows) {
          const std::int64_t rows = std::min<std::int64_t>(kTileRows, part.rows - r);
          float* corner = to.data + r * to.stride + j;
          for (std::int64_t i = 0; i < rows; ++i) {
            __builtin_prefetch(corner + i * to.stride, 1);
          }
          Tile tile;
          multiply_panels(scratch + r * depth, panels + j * depth, depth, tile);
          store_tile(tile, rows, std::min(kTileColumns, part.columns - j),
                     {corner, to.stride, to.accumulate});
        }
      }
      to.accumulate = true;
    }
    if constexpr (kRounds) {
      for (std::int64_t r = 0; r < part.rows; ++r) {
        C* row = c + (part.row + r) * product.n + part.column;
#pragma omp simd
        for (std::int64_t j = 0; j < part.columns; ++j) {
          row[j] = from_float<C>(sums[r * part.columns + j]);
        }
      }
    }
  }
};

/// A task's columns: all, unless that leaves threads without work.
std::int64_t task_columns(const Context& context, const Product& product) {
  const std::int64_t row_blocks = divide_up(product.m, kBlockRows);
  const bool enough = context.threads <= 1 || row_blocks >= 4 * context.threads;
  return enough ? product.n : std::min(product.n, kTaskColumns);
}

}  // namespace

void multiply(const Context& context, const Product& product, const void* a, const float* packed_b,
              void* c) {
  check(product.c == DType::f32 || !product.accumulate, "products are summed in float32");
  if (product.m == 0 || product.n == 0) {
    return;
  }
  if (product.k == 0) {
    if (!product.accumulate) {
      std::memset(c, 0, static_cast<std::size_t>(product.m * product.n) * size_of(product.c));
    }
    return;
  }
  const std::int64_t columns = task_columns(context, product);
  const std::int64_t across = divide_up(product.n, columns);
  dispatch_float(product.a, [&]<class A>(A) {
    dispatch_float(product.c, [&]<class C>(C) {
      const Multiply<A, C> op{product, static_cast<const A*>(a), packed_b, static_cast<C*>(c)};
      const ArenaScope scope(context.scratch);
      const std::int64_t floats = op.scratch_floats(columns);
      auto* memory = context.scratch.tensor(DType::f32, {std::max(1, context.threads), floats})
                         .template data<float>();
      parallel_tasks(context, divide_up(product.m, kBlockRows) * across,
                     [&](std::int64_t task, int thread) {
                       const std::int64_t row = task / across * kBlockRows;
                       const std::int64_t column = task % across * columns;
                       op.run({row, std::min(kBlockRows, product.m - row), column,
                               std::min(columns, product.n - column)},
                              memory + thread * floats);
                     });
    });
  });
}

std::int64_t packed_floats(std::int64_t k, std::int64_t n) { return k * round_up(n, kTileColumns); }

void pack(const Context& context, const Tensor& b, Order order, DType dtype, float* packed) {
  const bool transposed = order == Order::transposed;
  const std::int64_t k = transposed ? b.cols() : b.rows();
  const std::int64_t n = transposed ? b.rows() : b.cols();
  if (k == 0 || n == 0) {
    return;
  }
  const std::int64_t step = depth_of(k);
  const std::int64_t panels = divide_up(n, kTileColumns);
  const bool round = dtype == DType::bf16 && b.dtype() == DType::f32;
  dispatch_float(b.dtype(), [&]<class T>(T) {
    const auto* data = b.data<T>();
    parallel_blocks(context, panels, 1, [=](std::int64_t panel, std::int64_t) {
      const std::int64_t column = panel * kTileColumns;
      const std::int64_t columns = std::min(kTileColumns, n - column);
      for (std::int64_t begin = 0; begin < k; begin += step) {
        const std::int64_t depth = std::min(step, k - begin);
        float* to = packed + begin * panels * kTileColumns + column * depth;
        if (transposed) {
          pack_columns<kTileColumns>(View<T>{data + column * k + begin, k}, depth, columns, to);
        } else {
          pack_rows<kTileColumns>(View<T>{data + begin * n + column, n}, depth, columns, to);
        }
        if (round) {
#pragma omp simd
          for (std::int64_t i = 0; i < depth * kTileColumns; ++i) {
            to[i] = to_float(to_bfloat16(to[i]));
          }
        }
      }
    });
  });
}

}  // namespace cartesian::block_gemm
