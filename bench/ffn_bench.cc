// Expert FFNs, forward and backward, against the nine matrix products that they consist of alone
// (gate, up and down; their input gradients; their weight gradients) through oneDNN. Both are
// timed in turn in one process; the ratio is the median over rounds. Activations, their gradients,
// transpositions and conversions are overhead of ours.

#include <fmt/format.h>
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "bench/onednn_peer.h"
#include "kernels/ffn.h"

namespace cartesian::bench {
namespace {

struct Options {
  std::int64_t tokens = 1024;
  std::int64_t hidden = 768;
  std::int64_t width = 1536;
  std::vector<std::int64_t> experts{1, 4};
  int rounds = 9;
  int threads = 1;
};

/// `experts` FFNs with a batch of tokens each.
class Ours {
 public:
  Ours(const Context& context, Arena& arena, const Options& o, DType dtype, std::int64_t experts)
      : context_(context), dtype_(dtype), weights_(static_cast<std::size_t>(experts)) {
    for (std::int64_t e = 0; e < experts; ++e) {
      masters_.push_back({random_tensor(arena, DType::f32, {2 * o.width, o.hidden}, 0.1),
                          random_tensor(arena, DType::f32, {o.hidden, o.width}, 0.1)});
      gradients_.push_back({arena.zeros(DType::f32, {2 * o.width, o.hidden}),
                            arena.zeros(DType::f32, {o.hidden, o.width})});
      offsets_.push_back((e + 1) * o.tokens);
    }
    const std::int64_t rows = experts * o.tokens;
    h_ = random_tensor(arena, dtype, {rows, o.hidden}, 2);
    dy_ = random_tensor(arena, dtype, {rows, o.hidden}, 2);
    row_weights_ = random_tensor(arena, DType::f32, {rows}, 1);
    gate_up_ = arena.zeros(dtype, {rows, 2 * o.width});
    y_ = arena.zeros(dtype, {rows, o.hidden});
    dh_ = arena.zeros(dtype, {rows, o.hidden});
    drow_weights_ = arena.zeros(DType::f32, {rows});
    pack();
  }
  void pack() {
    for (std::size_t e = 0; e < weights_.size(); ++e) {
      weights_[e].gate_up.pack(context_, masters_[e].gate_up, dtype_);
      weights_[e].down.pack(context_, masters_[e].down, dtype_);
    }
  }
  void forward() { ffn_forward(context_, weights_, offsets_, h_, row_weights_, gate_up_, y_); }
  void backward() {
    ffn_backward(context_, weights_, gradients_, offsets_, h_, row_weights_, gate_up_, dy_, dh_,
                 drow_weights_);
  }

 private:
  const Context& context_;
  DType dtype_;
  std::vector<FfnWeights> weights_;
  std::vector<FfnGradients> masters_, gradients_;
  std::vector<std::int64_t> offsets_{0};
  Tensor h_, dy_, row_weights_, gate_up_, y_, dh_, drow_weights_;
};

/// The products of each of `experts` FFNs, every one with operands of its own.
class Peer {
 public:
  Peer(const Options& o, DType dtype, std::int64_t experts) {
    const std::int64_t m = o.tokens;
    add("gate, up forward", peer_products(dtype, m, o.width, o.hidden, 2 * experts));
    add("down forward", peer_products(dtype, m, o.hidden, o.width, experts));
    add("gate, up input gradients", peer_products(dtype, m, o.hidden, o.width, 2 * experts));
    add("down input gradient", peer_products(dtype, m, o.width, o.hidden, experts));
    add("gate, up weight gradients",
        peer_weight_gradients(dtype, m, o.width, o.hidden, 2, experts));
    add("down weight gradient", peer_weight_gradients(dtype, m, o.hidden, o.width, 1, experts));
  }
  void run() const {
    for (const Product& product : products_) {
      product.run();
    }
  }
  const std::string& ways() const { return ways_; }

 private:
  void add(const char* name, std::vector<Product> products) {
    ways_ += fmt::format("    {}: {}\n", name, products.front().way);
    std::ranges::move(products, std::back_inserter(products_));
  }

  std::vector<Product> products_;
  std::string ways_;
};

void compare(const Context& context, const Options& o, DType dtype, std::int64_t experts) {
  HostAllocator memory;
  Arena arena(memory);
  Ours ours(context, arena, o, dtype, experts);
  const Peer peer(o, dtype, experts);
  std::vector<double> forwards, backwards, totals, peers, packs, ratios;
  for (int round = -1; round < o.rounds; ++round) {
    const double forward = seconds_of([&] { ours.forward(); });
    const double backward = seconds_of([&] { ours.backward(); });
    const double products = seconds_of([&] { peer.run(); });
    const double pack = seconds_of([&] { ours.pack(); });
    if (round < 0) {
      continue;  // warm-up
    }
    forwards.push_back(forward);
    backwards.push_back(backward);
    totals.push_back(forward + backward);
    peers.push_back(products);
    packs.push_back(pack);
    ratios.push_back(products / (forward + backward));
  }
  const double gflop =
      9 * 2e-9 * static_cast<double>(experts * o.tokens) * static_cast<double>(o.hidden * o.width);
  fmt::print("{:9} {:7} {:9.1f} {:9.1f} {:7.3f} {:11.1f} {:12.1f} {:8.1f}\n", name_of(dtype),
             experts, gflop / median(totals), gflop / median(peers), median(ratios),
             1e3 * median(forwards), 1e3 * median(backwards), 1e3 * median(packs));
  if (experts == o.experts.front()) {
    fmt::print("{}", peer.ways());
  }
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{"Expert FFN forward + backward against its nine matrix products alone."};
  app.add_option("--tokens", options.tokens, "Tokens per expert")->capture_default_str();
  app.add_option("--hidden", options.hidden, "Model width d")->capture_default_str();
  app.add_option("--width", options.width, "Expert width D")->capture_default_str();
  app.add_option("--experts", options.experts, "Numbers of experts to run")->capture_default_str();
  app.add_option("--rounds", options.rounds, "Timed rounds")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--threads", options.threads, "OpenMP threads")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  omp_set_num_threads(options.threads);
  HostAllocator memory;
  Arena scratch(memory);
  Metrics metrics;
  const SteadyClock clock;
  const Context context{
      .threads = options.threads, .scratch = scratch, .metrics = metrics, .clock = clock};
  fmt::print("{}; {} thread(s), {} tokens per expert, d = {}, D = {}\n", processor(),
             options.threads, options.tokens, options.hidden, options.width);
  fmt::print("ratio: rate of ours over rate of the nine products, median of {} rounds\n",
             options.rounds);
  fmt::print("{:9} {:>7} {:>9} {:>9} {:>7} {:>11} {:>12} {:>8}\n", "dtype", "experts", "GFLOP/s",
             "products", "ratio", "forward ms", "backward ms", "pack ms");
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t experts : options.experts) {
      compare(context, options, dtype, experts);
    }
  }
  return 0;
}

}  // namespace
}  // namespace cartesian::bench

int main(int argc, char** argv) { return cartesian::bench::run(argc, argv); }
