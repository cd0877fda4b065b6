// One CartesianMoE layer of MoE-Base's size, forward and backward on one rank, against the matrix
// products of its FFNs alone through oneDNN with evenly loaded experts, timed in turn in one
// process. Everything else is overhead of ours: norms, routers, exchange, activations, layouts. The
// last line of a dtype is for bench/pytorch_layer.py to read.

#include <fmt/format.h>
#include <omp.h>

#include <CLI/CLI.hpp>

#include "bench/measure.h"
#include "bench/onednn_peer.h"
#include "comm/local_transport.h"
#include "runtime/model/moe_layer.h"

namespace cartesian::bench {
namespace {

struct Options {
  std::int64_t tokens = 1024;
  int rounds = 5;
  int threads = 1;
  std::vector<std::string> dtypes{"float32", "bfloat16"};
};

ModelConfig layer_config() {
  ModelConfig config;  // 16 + 16 sub-experts, top-2, a shared expert in each sub-layer
  config.hidden_size = 768;
  config.intermediate_size = 3072;
  return config;
}

class Layer {
 public:
  Layer(Transport& transport, const Options& options, DType dtype)
      : config_(layer_config()),
        placement_(Placement::linear({.layers = 1,
                                      .groups = 2,
                                      .experts = static_cast<int>(config_.num_experts),
                                      .ranks = 1},
                                     1)),
        exchange_(transport, topology_, placement_),
        op_{.threads = options.threads, .scratch = scratch_, .metrics = metrics_, .clock = clock_},
        rank_{.op = op_,
              .activations = activations_,
              .exchange = exchange_,
              .times = times_,
              .dtype = dtype,
              .mask = {},
              .training = {},
              .on_gradients = {},
              .on_route = {}},
        layer_(parameters_, config_, 0, 0) {
    layer_.add_experts(placement_, 0);
    parameters_.allocate();
    std::uint32_t state = 1;
    for (float& weight : parameters_.weights()) {  // quicker than initialize()
      state = state * 1664525U + 1013904223U;
      weight = 0.07F * (static_cast<float>(state >> 8) / 16777216.0F - 0.5F);
    }
    layer_.pack(op_, dtype);
    x_ = random_tensor(data_, dtype, {options.tokens, config_.hidden_size}, 2);
    out_ = data_.tensor(dtype, x_.shape());
    dout_ = random_tensor(data_, dtype, x_.shape(), 2);
    dx_ = data_.tensor(dtype, x_.shape());
    const auto experts = static_cast<std::size_t>(config_.num_experts);
    loads_.assign(2, {std::vector<double>(experts), std::vector<double>(experts)});
    dprobability_.assign(2, data_.zeros(DType::f32, {config_.num_experts}));
  }

  void run() {
    MoeLayer::Saved saved;
    layer_.forward(rank_, {.x = x_, .ids = {}, .hash_table = {}}, out_, saved, loads_);
    std::copy_n(static_cast<const std::byte*>(dout_.raw()), dout_.bytes(),
                static_cast<std::byte*>(dx_.raw()));
    layer_.backward(rank_, saved, dprobability_, dx_);
    activations_.reset();
  }

 private:
  ModelConfig config_;
  Topology topology_ = Topology::single_node(1);
  Placement placement_;
  HostAllocator memory_;
  Arena scratch_{memory_}, activations_{memory_}, data_{memory_};
  Metrics metrics_;
  SteadyClock clock_;
  PhaseTimes times_;
  Exchange exchange_;
  Context op_;
  RankContext rank_;
  ParameterStore parameters_;
  MoeLayer layer_;
  Tensor x_, out_, dout_, dx_;
  std::vector<RouterLoad> loads_;
  std::vector<Tensor> dprobability_;
};

/// Both sub-layers' FFN products: every routed expert with its share of rows, and the shared one.
std::vector<Product> layer_products(const Options& o, DType dtype) {
  const ModelConfig config = layer_config();
  const std::int64_t d = config.hidden_size;
  const std::int64_t width = config.expert_width();
  std::vector<Product> all;
  const auto add = [&](std::int64_t rows, std::int64_t count) {
    for (std::vector<Product> products :
         {peer_products(dtype, rows, 2 * width, d, count),
          peer_products(dtype, rows, d, width, count),
          peer_products(dtype, rows, d, 2 * width, count),
          peer_products(dtype, rows, width, d, count),
          peer_weight_gradients(dtype, rows, 2 * width, d, 1, count),
          peer_weight_gradients(dtype, rows, d, width, 1, count)}) {
      std::ranges::move(products, std::back_inserter(all));
    }
  };
  add(o.tokens * config.moe_top_k / config.num_experts, 2 * config.num_experts);
  add(o.tokens, 2);
  return all;
}

void compare(Transport& transport, const Options& options, const std::string& name) {
  const DType dtype = name == "float32" ? DType::f32 : DType::bf16;
  Layer layer(transport, options, dtype);
  const std::vector<Product> products = layer_products(options, dtype);
  std::vector<double> ours, alone, ratios;
  for (int round = -2; round < options.rounds; ++round) {
    const double layer_s = seconds_of([&] { layer.run(); });
    const double products_s = seconds_of([&] {
      for (const Product& product : products) {
        product.run();
      }
    });
    if (round >= 0) {
      ours.push_back(layer_s);
      alone.push_back(products_s);
      ratios.push_back(products_s / layer_s);
    }
  }
  const char* note =
      peer_dtype(dtype) == dtype ? "" : " (in float32: no bfloat16 on this processor)";
  fmt::print("{}: products alone{} take {:.3f} of the layer's time, median of {} rounds\n", name,
             note, median(ratios), options.rounds);
  fmt::print("{} layer_s {:.4f} products_s {:.4f}\n", name, median(ours), median(alone));
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{"One CartesianMoE layer of MoE-Base's size against its matrix products alone."};
  app.add_option("--tokens", options.tokens, "Tokens")->capture_default_str();
  app.add_option("--rounds", options.rounds, "Timed rounds")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--threads", options.threads, "OpenMP threads")->capture_default_str();
  app.add_option("--dtypes", options.dtypes, "float32, bfloat16")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  omp_set_num_threads(options.threads);
  fmt::print("{}; {} thread(s), {} tokens\n", processor(), options.threads, options.tokens);
  run_local_ranks(1, [&](Transport& transport) {
    omp_set_num_threads(options.threads);
    for (const std::string& dtype : options.dtypes) {
      compare(transport, options, dtype);
    }
  });
  return 0;
}

}  // namespace
}  // namespace cartesian::bench

int main(int argc, char** argv) { return cartesian::bench::run(argc, argv); }
