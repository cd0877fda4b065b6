#include "kernels/onednn.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "base/error.h"

namespace cartesian::onednn {

namespace {

using Desc = dnnl::memory::desc;
using Tag = dnnl::memory::format_tag;

/// The threads of the team that a parallel region started here gets: a primitive that was made for
/// more would leave part of its result unwritten.
int team_size(const Context& context) {
  return omp_in_parallel() != 0 ? 1 : std::clamp(context.threads, 1, omp_get_thread_limit());
}

/// oneDNN asks OpenMP how many threads there are, both when a primitive is made and when it runs.
/// Exactly so many, for as long as this lives.
class OmpThreads {
 public:
  explicit OmpThreads(int threads)
      : threads_before_(omp_get_max_threads()), dynamic_before_(omp_get_dynamic()) {
    set(threads, 0);
  }
  ~OmpThreads() { set(threads_before_, dynamic_before_); }
  OmpThreads(const OmpThreads&) = delete;
  OmpThreads& operator=(const OmpThreads&) = delete;

 private:
  static void set(int threads, int dynamic) {
    if (omp_get_max_threads() != threads) {
      omp_set_num_threads(threads);
    }
    if (omp_get_dynamic() != dynamic) {
      omp_set_dynamic(dynamic);
    }
  }
  int threads_before_;
  int dynamic_before_;
};

enum class Kind { matmul, transposed_product, pack_plain, pack_transposed, layout };

/// Everything a primitive depends on. Kinds use `m`, `n`, `k` as the functions below say.
struct Key {
  Kind kind;
  int threads;
  std::int64_t m, n, k;
  DType from, to;
  auto tie() const { return std::tie(kind, threads, m, n, k, from, to); }
  bool operator<(const Key& other) const { return tie() < other.tie(); }
};

/// A primitive with the descriptions of its operands. Kind::layout has no primitive, and
/// the layout as `b`. A reorder reads `a` and writes `c`.
struct Plan {
  Desc a, b, c, scratch;
  dnnl::primitive primitive;
};
using PlanPtr = std::shared_ptr<const Plan>;

/// The least recently used plan goes first. Plans still in use outlive their eviction.
class PlanCache {
 public:
  /// Plans are made one at a time, while threads that find theirs go on. `make` may itself get().
  template <class Make>
  PlanPtr get(const Key& key, Make make) {
    if (PlanPtr found = find(key)) {
      return found;
    }
    const std::lock_guard making(making_);
    if (PlanPtr found = find(key)) {
      return found;
    }
    auto made = std::make_shared<const Plan>(make());
    insert(key, made);
    return made;
  }

  CacheState state() {
    const std::lock_guard lock(mutex_);
    return {std::ssize(entries_), made_};
  }

 private:
  using Entries = std::list<std::pair<Key, PlanPtr>>;

  PlanPtr find(const Key& key) {
    const std::lock_guard lock(mutex_);
    const auto it = index_.find(key);
    if (it == index_.end()) {
      return nullptr;
    }
    entries_.splice(entries_.begin(), entries_, it->second);
    return it->second->second;
  }

  void insert(const Key& key, PlanPtr plan) {
    const std::lock_guard lock(mutex_);
    entries_.emplace_front(key, std::move(plan));
    index_.emplace(key, entries_.begin());
    ++made_;
    if (std::ssize(entries_) > kMaxPrimitives) {
      index_.erase(entries_.back().first);
      entries_.pop_back();
    }
  }

  std::recursive_mutex making_;
  std::mutex mutex_;
  Entries entries_;                         // guarded by mutex_; most recently used first
  std::map<Key, Entries::iterator> index_;  // guarded by mutex_
  std::int64_t made_ = 0;                   // guarded by mutex_
};

/// oneDNN's engine and the plans made on it. Process-wide, since generated code is costly to make
/// and the same for all ranks that are threads of one process.
struct Library {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  PlanCache plans;
};

Library& library() {
  static Library instance;
  return instance;
}

dnnl::memory::data_type data_type(DType dtype) {
  check(dtype == DType::f32 || dtype == DType::bf16, "matrices are float32 or bfloat16");
  return dtype == DType::f32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

Desc matrix(std::int64_t rows, std::int64_t cols, DType dtype, Tag tag) {
  return {{rows, cols}, data_type(dtype), tag};
}

dnnl::matmul::primitive_desc matmul_desc(const Desc& a, const Desc& b, const Desc& c,
                                         bool accumulate = false) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0F);
    attributes.set_post_ops(sum);
  }
#if DNNL_VERSION_MAJOR >= 3
  return {library().engine, a, b, c, attributes};
#else
  return {dnnl::matmul::desc(a, b, c), attributes, library().engine};
#endif
}

/// The layout that oneDNN prefers for B when A has many rows. It must not depend on the threads or
/// rows of a call, so it is asked for with fixed ones.
Desc packed_layout(DType dtype, std::int64_t k, std::int64_t n) {
  constexpr std::int64_t kRows = 1024;
  const Key key{Kind::layout, 1, kRows, n, k, dtype, dtype};
  const PlanPtr plan = library().plans.get(key, [&] {
    const OmpThreads one(1);
    const auto desc = matmul_desc(matrix(kRows, k, dtype, Tag::ab), matrix(k, n, dtype, Tag::any),
                                  matrix(kRows, n, dtype, Tag::ab));
    return Plan{{}, desc.weights_desc(), {}, {}, {}};
  });
  return plan->b;
}

Plan make_matmul(const dnnl::matmul::primitive_desc& desc) {
  return {desc.src_desc(), desc.weights_desc(), desc.dst_desc(), desc.scratchpad_desc(),
          dnnl::matmul(desc)};
}

Plan make_reorder(const Desc& from, const Desc& to) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const dnnl::engine& engine = library().engine;
  const dnnl::reorder::primitive_desc desc(engine, from, engine, to, attributes);
  return {from, {}, to, desc.scratchpad_desc(), dnnl::reorder(desc)};
}

/// Runs `plan` on the operands, with scratch from the context.
void execute(const Context& context, const Plan& plan, const void* a, const void* b, void* c) {
  const dnnl::engine& engine = library().engine;
  const auto bind = [&](const Desc& desc, const void* data) {
    return dnnl::memory(desc, engine, const_cast<void*>(data));
  };
  const ArenaScope scope(context.scratch);
  dnnl::memory scratch = bind(plan.scratch, context.scratch.allocate(plan.scratch.get_size()));
  std::unordered_map<int, dnnl::memory> arguments{{DNNL_ARG_SCRATCHPAD, scratch}};
  if (b != nullptr) {
    arguments.emplace(DNNL_ARG_SRC, bind(plan.a, a));
    arguments.emplace(DNNL_ARG_WEIGHTS, bind(plan.b, b));
    arguments.emplace(DNNL_ARG_DST, bind(plan.c, c));
  } else {
    arguments.emplace(DNNL_ARG_FROM, bind(plan.a, a));
    arguments.emplace(DNNL_ARG_TO, bind(plan.c, c));
  }
  dnnl::stream stream(engine);
  plan.primitive.execute(stream, arguments);
  stream.wait();
}

/// Runs `body` with context.threads threads; what oneDNN throws becomes an Error naming `what`.
template <class Body>
void guarded(const Context& context, const char* what, Body body) {
  check(context.device == Device::cpu, "oneDNN runs on the CPU");
  const OmpThreads threads(team_size(context));
  try {
    body();
  } catch (const dnnl::error& error) {
    throw Error(fmt::format("oneDNN could not {}: {}", what, error.what()));
  }
}

}  // namespace

bool multiplies(DType dtype) {
  // The values of this enumeration are sets of features.
  const auto has = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto needed = static_cast<unsigned>(dtype == DType::f32 ? dnnl::cpu_isa::avx512_core
                                                                : dnnl::cpu_isa::avx512_core_bf16);
  return (has & needed) == needed;
}

void matmul(const Context& context, const Matmul& sizes, const void* a, const void* packed_b,
            void* c) {
  if (sizes.m == 0 || sizes.n == 0 || sizes.k == 0) {
    if (sizes.m * sizes.n > 0) {
      std::memset(c, 0, static_cast<std::size_t>(sizes.m * sizes.n) * size_of(sizes.output));
    }
    return;
  }
  guarded(context, "multiply matrices", [&] {
    const auto& [m, n, k, inputs, output] = sizes;
    const Key key{Kind::matmul, team_size(context), m, n, k, inputs, output};
    const PlanPtr plan = library().plans.get(key, [&] {
      return make_matmul(matmul_desc(matrix(m, k, inputs, Tag::ab), packed_layout(inputs, k, n),
                                     matrix(m, n, output, Tag::ab)));
    });
    execute(context, *plan, a, packed_b, c);
  });
}

std::size_t packed_bytes(DType dtype, std::int64_t k, std::int64_t n) {
  return k == 0 || n == 0 ? 0 : packed_layout(dtype, k, n).get_size();
}

void pack(const Context& context, const Tensor& b, Source source, DType dtype, void* packed) {
  if (b.numel() == 0) {
    return;
  }
  const bool transposed = source == Source::transposed;
  const std::int64_t k = transposed ? b.cols() : b.rows();
  const std::int64_t n = transposed ? b.rows() : b.cols();
  guarded(context, "pack a matrix", [&] {
    const Kind kind = transposed ? Kind::pack_transposed : Kind::pack_plain;
    const Key key{kind, team_size(context), 0, n, k, b.dtype(), dtype};
    const PlanPtr plan = library().plans.get(key, [&] {
      return make_reorder(matrix(k, n, b.dtype(), transposed ? Tag::ba : Tag::ab),
                          packed_layout(dtype, k, n));
    });
    execute(context, *plan, b.raw(), nullptr, packed);
  });
}

void add_transposed_product(const Context& context, const Tensor& a, const Tensor& b,
                            const Tensor& c) {
  const std::int64_t rows = a.rows(), m = a.cols(), n = b.cols();
  check(b.rows() == rows && rows <= kMaxSummedRows && b.dtype() == a.dtype() &&
            c.shape() == Shape{m, n} && c.dtype() == DType::f32,
        "a transposed product needs a [rows, m], b [rows, n] of one dtype and c [m, n] float32");
  if (rows == 0 || c.numel() == 0) {
    return;
  }
  guarded(context, "multiply a transposed matrix", [&] {
    const Key key{Kind::transposed_product, team_size(context), m, n, rows, a.dtype(), c.dtype()};
    const PlanPtr plan = library().plans.get(key, [&] {
      return make_matmul(matmul_desc(matrix(m, rows, a.dtype(), Tag::ba),
                                     matrix(rows, n, b.dtype(), Tag::ab),
                                     matrix(m, n, c.dtype(), Tag::ab), /*accumulate=*/true));
    });
    execute(context, *plan, a.raw(), b.raw(), c.raw());
  });
}

CacheState cache_state() { return library().plans.state(); }

}  // namespace cartesian::onednn
