// The ops that are not matrix products against the machine's limits, measured in the same run:
// memory-bound ops against a copy of the same size, attention against oneDNN's float32 GEMM.
// Prints one line per op: what it achieved, what the limit achieved, their ratio.

#include <dnnl.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "base/index.h"
#include "base/random.h"
#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/mix.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/rows.h"
#include "kernels/top_k.h"

namespace cartesian {
namespace {

struct Settings {
  int threads = 1;
  int repetitions = 15;
  std::int64_t tokens = 8192;
  std::int64_t hidden = 768;
  std::int64_t vocabulary = 8192;
  std::vector<std::int64_t> lengths = {256, 512, 1024};
};

/// Memory and a context for all measurements of a run.
class Bench {
 public:
  explicit Bench(const Settings& settings)
      : settings_(settings),
        scratch_(memory_),
        data_(memory_),
        context_{.threads = settings.threads,
                 .scratch = scratch_,
                 .metrics = metrics_,
                 .clock = clock_} {}

  const Context& context() const { return context_; }
  Arena& data() { return data_; }

  Tensor random(DType dtype, Shape shape) {
    const Tensor wide = data_.tensor(DType::f32, shape);
    for (std::int64_t i = 0; i < wide.numel(); ++i) {
      const auto bits = random_bits(1, static_cast<std::uint64_t>(i));
      wide.data<float>()[i] = static_cast<float>(static_cast<double>(bits) * 0x1p-63 - 1);
    }
    const Tensor result = data_.tensor(dtype, shape);
    convert(context_, wide, result);
    return result;
  }
  Tensor ids(Shape shape, std::int64_t below) {
    const Tensor result = data_.tensor(DType::i32, shape);
    for (std::int64_t i = 0; i < result.numel(); ++i) {
      const auto bits = random_bits(2, static_cast<std::uint64_t>(i));
      result.data<std::int32_t>()[i] =
          static_cast<std::int32_t>(bits % static_cast<std::uint64_t>(below));
    }
    return result;
  }

  /// Where each of 2 * tokens (token, choice) pairs comes from when rows are sorted by expert, as
  /// before an exchange: ascending tokens, expert by expert.
  std::vector<std::int32_t> pairs_by_expert(std::int64_t tokens) const {
    constexpr int kExperts = 16;
    std::vector<std::int32_t> pairs;
    for (int expert = 0; expert < kExperts; ++expert) {
      for (std::int32_t pair = 0; pair < 2 * tokens; ++pair) {
        if (random_bits(3, static_cast<std::uint64_t>(pair)) % kExperts ==
            static_cast<std::uint64_t>(expert)) {
          pairs.push_back(pair);
        }
      }
    }
    return pairs;
  }

  /// The fastest of each over interleaved repetitions, so that a slow phase of the machine hits
  /// both.
  std::pair<double, double> fastest(const std::function<void()>& op,
                                    const std::function<void()>& limit) const {
    std::pair<double, double> best{std::numeric_limits<double>::max(),
                                   std::numeric_limits<double>::max()};
    for (int i = 0; i <= settings_.repetitions; ++i) {  // the first warms up
      const double op_seconds = seconds(op);
      const double limit_seconds = seconds(limit);
      if (i > 0) {
        best = {std::min(best.first, op_seconds), std::min(best.second, limit_seconds)};
      }
    }
    return best;
  }

  /// `bytes` that the op must move at least, against a copy that moves as many.
  void memory_op(const std::string& name, double bytes, const std::function<void()>& op) {
    const ArenaScope scope(data_);
    const auto floats = std::max<std::int64_t>(1, static_cast<std::int64_t>(bytes / 8));
    const Tensor from = random(DType::f32, {floats});
    const Tensor to = random(DType::f32, {floats});
    const auto [op_seconds, copy_seconds] = fastest(op, [&] { convert(context_, from, to); });
    fmt::print("{:<34} {:>9.2f} {:>9.2f} {:>7.2f}\n", name, bytes / op_seconds / 1e9,
               bytes / copy_seconds / 1e9, copy_seconds / op_seconds);
  }

 private:
  double seconds(const std::function<void()>& body) const {
    const Seconds start = clock_.now();
    body();
    return (clock_.now() - start).count();
  }

  Settings settings_;
  HostAllocator memory_;
  Arena scratch_;
  Arena data_;
  Metrics metrics_;
  SteadyClock clock_;
  Context context_;
};

double bytes_of(std::initializer_list<Tensor> tensors) {
  double sum = 0;
  for (const Tensor& tensor : tensors) {
    sum += static_cast<double>(tensor.bytes());
  }
  return sum;
}

void bench_row_ops(Bench& b, const Settings& s, DType dtype) {
  const ArenaScope scope(b.data());
  const Context& c = b.context();
  const std::string suffix = fmt::format(" {}", name_of(dtype));
  const Tensor x = b.random(dtype, {s.tokens, s.hidden});
  const Tensor y = b.random(dtype, {s.tokens, s.hidden});
  const Tensor z = b.random(dtype, {s.tokens, s.hidden});
  const Tensor pairs = b.random(dtype, {2 * s.tokens, s.hidden});
  const Tensor weight = b.random(DType::f32, {s.hidden});
  const Tensor dweight = b.random(DType::f32, {s.hidden});
  const Tensor inv_rms = b.random(DType::f32, {s.tokens});
  // What an exchange sends, and sums when it is back.
  const std::vector<const std::byte*> rows_of_x = row_sources(x);
  const std::vector<const std::byte*> rows_of_pairs = row_sources(pairs);
  std::vector<const std::byte*> sent;
  std::vector<const std::byte*> terms(rows_of_pairs.size());
  for (const std::int32_t pair : b.pairs_by_expert(s.tokens)) {
    terms[as_index(pair)] = rows_of_pairs[sent.size()];
    sent.push_back(rows_of_x[as_index(pair / 2)]);
  }
  std::vector<std::int64_t> begins;
  for (std::int64_t t = 0; t <= s.tokens; ++t) {
    begins.push_back(2 * t);
  }
  const std::vector<std::byte*> to_pairs = row_targets(pairs);
  const std::vector<std::byte*> to_x = row_targets(x);
  b.memory_op("add" + suffix, bytes_of({x, y, z}), [&] { add(c, x, y, z); });
  b.memory_op("copy_rows" + suffix, 2 * bytes_of({pairs}),
              [&] { copy_rows(c, sent, to_pairs, as_index(s.hidden) * size_of(dtype)); });
  b.memory_op("sum_rows, 2 terms" + suffix, bytes_of({pairs, x}),
              [&] { sum_rows(c, dtype, s.hidden, begins, terms, to_x); });
  b.memory_op("rms_norm_forward" + suffix, bytes_of({x, y}),
              [&] { rms_norm_forward(c, x, weight, 1e-6F, y, inv_rms); });
  b.memory_op("rms_norm_backward" + suffix, bytes_of({x, y, z, z}),
              [&] { rms_norm_backward(c, x, weight, inv_rms, y, z, dweight); });

  constexpr std::int64_t kHeadDim = 64;
  const std::int64_t heads = std::max<std::int64_t>(1, s.hidden / kHeadDim);
  const Tensor qkv = b.random(dtype, {s.tokens, 3, heads, kHeadDim});
  const RopeTable table = make_rope_table(b.data(), 1024, kHeadDim, 10000);
  b.memory_op("rope" + suffix, bytes_of({qkv}) * 4 / 3, [&] { rope(c, table, 1024, qkv, false); });

  const Tensor tokens = b.ids({s.tokens}, s.vocabulary);
  const Tensor embeddings = b.random(DType::f32, {s.vocabulary, s.hidden});
  const double table_rows = 4.0 * static_cast<double>(s.tokens * s.hidden);
  b.memory_op("embedding_forward" + suffix, table_rows + bytes_of({x}),
              [&] { embedding_forward(c, tokens, embeddings, x); });
  b.memory_op("embedding_backward" + suffix, 2 * table_rows + bytes_of({x}),
              [&] { embedding_backward(c, tokens, x, embeddings); });
}

void bench_float32_ops(Bench& b, const Settings& s) {
  const ArenaScope scope(b.data());
  const Context& c = b.context();
  const Tensor w = b.random(DType::f32, {s.vocabulary, s.hidden});
  const Tensor g = b.random(DType::f32, {s.vocabulary, s.hidden});
  const Tensor m = b.random(DType::f32, {s.vocabulary, s.hidden});
  const Tensor v = b.data().zeros(DType::f32, {s.vocabulary, s.hidden});
  b.memory_op("adamw_update", bytes_of({g, w, w, m, m, v, v}), [&] {
    adamw_update(c, {.learning_rate = 1e-6F, .weight_decay = 0.1F, .step = 9}, g, w, m, v);
  });
  b.memory_op("sum_of_squares", bytes_of({g}), [&] { sum_of_squares(c, g); });

  const std::int64_t rows = std::min<std::int64_t>(s.tokens, 2048);
  const Tensor logits = b.random(DType::f32, {rows, s.vocabulary});
  const Tensor dlogits = b.random(DType::f32, {rows, s.vocabulary});
  const Tensor targets = b.ids({rows}, s.vocabulary);
  const Tensor losses = b.random(DType::f32, {rows});
  b.memory_op("cross_entropy with gradient", bytes_of({logits, dlogits}),
              [&] { cross_entropy(c, logits, targets, 1, losses, dlogits); });
}

// The router's tensors are small and stay in the cache: nanoseconds per token say more than bytes.
void bench_router(Bench& b, const Settings& s) {
  const ArenaScope scope(b.data());
  const Context& c = b.context();
  const auto report = [&](const std::string& name, const std::function<void()>& op) {
    const double seconds = b.fastest(op, [] {}).first;
    fmt::print("{:<34} {:>9.1f} ns a token\n", name, seconds * 1e9 / static_cast<double>(s.tokens));
  };
  for (const std::int64_t experts : {16, 64}) {
    const Tensor logits = b.random(DType::f32, {s.tokens, experts});
    const Tensor p = b.random(DType::f32, {s.tokens, experts});
    const Tensor ids = b.ids({s.tokens, 2}, experts);
    const Tensor gates = b.random(DType::f32, {s.tokens, 2});
    const Tensor dlogits = b.random(DType::f32, {s.tokens, experts});
    report(fmt::format("top_k_forward, 2 of {}", experts),
           [&] { top_k_forward(c, logits, p, ids, gates); });
    report(fmt::format("top_k_backward, 2 of {}", experts),
           [&] { top_k_backward(c, p, ids, gates, gates, Tensor(), dlogits); });
  }
  const Tensor logits = b.random(DType::f32, {s.tokens, 2});
  const Tensor bias = b.random(DType::f32, {2});
  const Tensor gates = b.random(DType::f32, {s.tokens, 2});
  const Tensor coefficients = b.random(DType::f32, {s.tokens, 2});
  const Tensor row_gates = b.random(DType::f32, {s.tokens, 2});
  const Tensor shared = b.random(DType::f32, {s.tokens});
  report("mix_forward",
         [&] { mix_forward(c, logits, bias, gates, 1.0F, coefficients, row_gates, shared); });
}

void bench_attention(Bench& b, const Settings& s, DType dtype, std::int64_t length) {
  const ArenaScope scope(b.data());
  const Context& c = b.context();
  constexpr std::int64_t kHeadDim = 64;
  const std::int64_t heads = std::max<std::int64_t>(1, s.hidden / kHeadDim);
  const std::int64_t sequences = std::max<std::int64_t>(1, 2048 / length);
  const std::int64_t tokens = sequences * length;
  const Tensor qkv = b.random(dtype, {tokens, 3, heads, kHeadDim});
  const Tensor dqkv = b.random(dtype, {tokens, 3, heads, kHeadDim});
  const Tensor out = b.random(dtype, {tokens, heads * kHeadDim});
  const Tensor dout = b.random(dtype, {tokens, heads * kHeadDim});
  const Tensor lse = b.random(DType::f32, {sequences, heads, length});

  constexpr std::int64_t kGemm = 768;
  const Tensor left = b.random(DType::f32, {kGemm, kGemm});
  const Tensor right = b.random(DType::f32, {kGemm, kGemm});
  const Tensor product = b.random(DType::f32, {kGemm, kGemm});
  const auto gemm = [&] {
    dnnl_sgemm('N', 'N', kGemm, kGemm, kGemm, 1.0F, left.data<float>(), kGemm, right.data<float>(),
               kGemm, 0.0F, product.data<float>(), kGemm);
  };
  // Only what the causal mask leaves counts as work: length * (length + 1) / 2 scores a head.
  const double product_flops = static_cast<double>(sequences * heads * length * (length + 1)) *
                               static_cast<double>(kHeadDim);
  const double gemm_flops = 2.0 * kGemm * kGemm * kGemm;
  const auto report = [&](const char* name, double products, const std::function<void()>& op) {
    const auto [op_seconds, gemm_seconds] = b.fastest(op, gemm);
    const double rate = products * product_flops / op_seconds;
    const double limit = gemm_flops / gemm_seconds;
    fmt::print("{:<34} {:>9.1f} {:>9.1f} {:>7.2f}\n",
               fmt::format("{} {}, length {}", name, name_of(dtype), length), rate / 1e9,
               limit / 1e9, rate / limit);
  };
  const AttentionSequences causal{length, {}};
  report("forward", 2, [&] { attention_forward(c, qkv, causal, out, lse); });
  report("backward", 5, [&] { attention_backward(c, qkv, causal, out, lse, dout, dqkv); });

  // Within documents of about a quarter of a sequence: how much faster than without bounds.
  const Tensor first_keys = b.data().tensor(DType::i32, {tokens});
  const std::int64_t document = std::max<std::int64_t>(1, length / 4 - 3);
  for (std::int64_t t = 0; t < tokens; ++t) {
    first_keys.data<std::int32_t>()[t] =
        static_cast<std::int32_t>(t % length / document * document);
  }
  const AttentionSequences documents{length, first_keys};
  const auto compare = [&](const char* name, const auto& op) {
    const auto [with, without] = b.fastest([&] { op(documents); }, [&] { op(causal); });
    fmt::print("{:<34} {:>27.2f}x\n", fmt::format("{} within documents of {}", name, document),
               without / with);
  };
  compare("forward", [&](const AttentionSequences& s) { attention_forward(c, qkv, s, out, lse); });
  compare("backward", [&](const AttentionSequences& s) {
    attention_backward(c, qkv, s, out, lse, dout, dqkv);
  });
}

void run(const Settings& settings) {
  Bench bench(settings);
  fmt::print("{} thread(s), {} tokens of {}\n\n", settings.threads, settings.tokens,
             settings.hidden);
  fmt::print("{:<34} {:>9} {:>9} {:>7}\n", "memory-bound op", "GB/s", "copy", "ratio");
  for (const DType dtype : {DType::f32, DType::bf16}) {
    bench_row_ops(bench, settings, dtype);
  }
  bench_float32_ops(bench, settings);
  fmt::print("\n");
  bench_router(bench, settings);
  fmt::print("\n{:<34} {:>9} {:>9} {:>7}\n", "causal attention, head_dim 64", "GFLOP/s", "sgemm",
             "ratio");
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t length : settings.lengths) {
      bench_attention(bench, settings, dtype, length);
    }
  }
}

}  // namespace
}  // namespace cartesian

int main(int argc, char** argv) {
  cartesian::Settings settings;
  CLI::App app("Measures the ops against memory bandwidth and GEMM rate of the same run.");
  app.add_option("--threads", settings.threads,
                 "threads of the ops (set OMP_NUM_THREADS to the same, for the GEMM)")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--repetitions", settings.repetitions, "repetitions; the fastest counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--tokens", settings.tokens, "tokens")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--hidden", settings.hidden, "hidden size")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--lengths", settings.lengths, "attention's sequence lengths")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  cartesian::run(settings);
  return 0;
}
