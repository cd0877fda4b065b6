#include "bench/onednn_peer.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "base/bfloat16.h"
#include "base/random.h"

namespace cartesian::bench {

namespace {

using Desc = dnnl::memory::desc;
using Tag = dnnl::memory::format_tag;
using Arguments = std::unordered_map<int, dnnl::memory>;

dnnl::engine& engine() {
  static dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

Desc matrix(std::int64_t rows, std::int64_t cols, DType dtype, Tag tag) {
  return {{rows, cols},
          dtype == DType::f32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16,
          tag};
}

/// Random values of order one; what pads a layout is random too, which the time does not notice.
dnnl::memory filled(const Desc& desc, DType dtype) {
  dnnl::memory memory(desc, engine());
  const std::size_t count = desc.get_size() / size_of(dtype);
  for (std::size_t i = 0; i < count; ++i) {
    const auto value = static_cast<float>(random_uniform(1, i) - 0.5);
    if (dtype == DType::f32) {
      static_cast<float*>(memory.get_data_handle())[i] = value;
    } else {
      static_cast<bfloat16*>(memory.get_data_handle())[i] = to_bfloat16(value);
    }
  }
  return memory;
}

/// A primitive bound to its operands.
struct Call {
  dnnl::primitive primitive;
  Arguments arguments;

  void operator()() const {
    dnnl::stream stream(engine());
    primitive.execute(stream, arguments);
    stream.wait();
  }
};

struct Matmul {
  Call call;
  dnnl::memory a, b;
};

Matmul make_matmul(const Desc& a, const Desc& b, const Desc& c, DType in, DType out, bool sum) {
  dnnl::primitive_attr attributes;
  if (sum) {
    dnnl::post_ops operations;
    operations.append_sum(1.0F);
    attributes.set_post_ops(operations);
  }
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc desc(engine(), a, b, c, attributes);
#else
  const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(a, b, c), attributes, engine());
#endif
  Matmul result{.call = {}, .a = filled(desc.src_desc(), in), .b = filled(desc.weights_desc(), in)};
  result.call = {dnnl::matmul(desc),
                 {{DNNL_ARG_SRC, result.a},
                  {DNNL_ARG_WEIGHTS, result.b},
                  {DNNL_ARG_DST, filled(desc.dst_desc(), out)}}};
  return result;
}

Call make_reorder(dnnl::memory from, dnnl::memory to) {
  return {dnnl::reorder(from, to), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}}};
}

double seconds_of(const Product& product) {
  const auto start = std::chrono::steady_clock::now();
  product.run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// A way of writing a product: each call makes one, with operands of its own.
using Way = std::function<Product()>;

/// `count` products written in the way that is fastest here, the ways timed in turn.
std::vector<Product> fastest(const std::vector<Way>& ways, std::int64_t count) {
  constexpr int kRounds = 7;
  std::vector<Product> candidates;
  for (const Way& way : ways) {
    candidates.push_back(way());
  }
  std::vector<double> best(ways.size(), std::numeric_limits<double>::infinity());
  for (int round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < ways.size(); ++i) {
      best[i] = std::min(best[i], seconds_of(candidates[i]));
    }
  }
  const auto chosen =
      static_cast<std::size_t>(std::min_element(best.begin(), best.end()) - best.begin());
  std::vector<Product> result;
  for (std::int64_t i = 0; i < count; ++i) {
    result.push_back(ways[chosen]());
  }
  return result;
}

/// One of the ways of peer_weight_gradients().
Product weight_gradients(DType dtype, std::int64_t rows, std::int64_t n, std::int64_t k,
                         int gradients, bool transpose_dy, bool pack_x) {
  const Desc x_plain = matrix(rows, k, dtype, Tag::ab);
  const dnnl::memory x = filled(x_plain, dtype);
  dnnl::memory x_laid_out = x;
  std::vector<Call> calls;
  for (int g = 0; g < gradients; ++g) {
    // dy [rows, n] row-major is dy^T with the format ba.
    const Desc given = matrix(n, rows, dtype, Tag::ba);
    Matmul matmul = make_matmul(transpose_dy ? matrix(n, rows, dtype, Tag::ab) : given,
                                pack_x ? matrix(rows, k, dtype, Tag::any) : x_plain,
                                matrix(n, k, DType::f32, Tag::ab), dtype, DType::f32, true);
    if (g == 0 && pack_x) {
      x_laid_out = matmul.b;
      calls.push_back(make_reorder(x, x_laid_out));
    }
    matmul.call.arguments[DNNL_ARG_WEIGHTS] = x_laid_out;
    if (transpose_dy) {
      calls.push_back(make_reorder(filled(given, dtype), matmul.a));
    }
    calls.push_back(std::move(matmul.call));
  }
  return {[calls] {
            for (const Call& call : calls) {
              call();
            }
          },
          std::string(transpose_dy ? "dy transposed first" : "dy as it is") +
              (pack_x ? ", x packed first" : ", x as it is")};
}

}  // namespace

DType peer_dtype(DType dtype) {
  const auto has = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto needed = static_cast<unsigned>(dnnl::cpu_isa::avx512_core);
  return (has & needed) == needed ? dtype : DType::f32;
}

std::vector<Product> peer_products(DType given, std::int64_t m, std::int64_t n, std::int64_t k,
                                   std::int64_t count) {
  const DType dtype = peer_dtype(given);
  const auto way = [=](Tag weights, const char* name) {
    return [=] {
      return Product{make_matmul(matrix(m, k, dtype, Tag::ab), matrix(k, n, dtype, weights),
                                 matrix(m, n, dtype, Tag::ab), dtype, dtype, false)
                         .call,
                     name};
    };
  };
  return fastest({way(Tag::any, "weight packed"), way(Tag::ab, "weight [in, out]"),
                  way(Tag::ba, "weight [out, in]")},
                 count);
}

std::vector<Product> peer_weight_gradients(DType given, std::int64_t rows, std::int64_t n,
                                           std::int64_t k, int gradients, std::int64_t count) {
  const DType dtype = peer_dtype(given);
  std::vector<Way> ways;
  for (const bool transpose_dy : {false, true}) {
    for (const bool pack_x : {false, true}) {
      ways.emplace_back(
          [=] { return weight_gradients(dtype, rows, n, k, gradients, transpose_dy, pack_x); });
    }
  }
  return fastest(ways, count);
}

}  // namespace cartesian::bench
