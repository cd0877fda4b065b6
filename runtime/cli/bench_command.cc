#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "comm/collectives.h"
#include "comm/mpi_transport.h"
#include "planner/synthetic_trace.h"
#include "runtime/bench/alltoallv_journey.h"
#include "runtime/bench/exchange_journey.h"
#include "runtime/bench/exchange_report.h"
#include "runtime/cli/command.h"
#include "runtime/cli/routing_options.h"
#include "runtime/config/config.h"
#include "runtime/job.h"
#include "runtime/model/model_memory.h"
#include "runtime/thread_count.h"

namespace cartesian {

namespace {

struct Options {
  std::int64_t tokens = 1024;
  std::int64_t hidden = 1024;
  std::string dtype = "float32";
  SyntheticTraceSpec random{.experts = 64, .choices = 8, .prediction = 0.85};
  std::uint64_t seed = 1;
  std::string trace;
  int layer = 0;
  std::string placement = "linear";
  std::string flow = "auto";
  std::string pivot = "auto";
  int chunks = 1;
  std::vector<std::int64_t> node_sizes;
  CommConfig comm;
  int threads = 0;
  int repeats = 20;
  bool validate = false;
  std::string output;
};

constexpr int kMostWide = std::numeric_limits<std::int32_t>::max();

void check_sizes(const Options& options, int ranks) {
  const auto sum =
      std::reduce(options.node_sizes.begin(), options.node_sizes.end(), std::int64_t{0});
  if (!options.node_sizes.empty() && sum != ranks) {
    throw ConfigError(fmt::format("--node-sizes {} adds up to {} ranks, but the job has {}",
                                  fmt::join(options.node_sizes, ","), sum, ranks));
  }
  if (options.random.choices > options.random.experts) {
    throw ConfigError(fmt::format("--top-k {}: a token cannot choose more than all --experts {}",
                                  options.random.choices, options.random.experts));
  }
  if (options.tokens > kMostWide / ranks) {
    throw ConfigError(
        fmt::format("--tokens {} on each of {} ranks: at most {} in all can be told "
                    "apart",
                    options.tokens, ranks, kMostWide));
  }
}

RoutingTrace load_trace(FileSystem& files, const Options& options) {
  RoutingTrace trace = load_routing_trace(files, options.trace);
  if (trace.tokens == 0 && options.tokens > 0) {
    throw ConfigError(fmt::format("{} has no tokens to route by", options.trace));
  }
  const auto layers = static_cast<int>(layers_of(trace).size());
  if (options.layer >= layers) {
    throw ConfigError(fmt::format("--layer {}: {} has {} MoE layers, which count from 0",
                                  options.layer, options.trace, layers));
  }
  return trace;
}

RoutingTrace make_trace(const Options& options, int ranks) {
  SyntheticTraceSpec spec = options.random;
  spec.tokens = options.tokens * ranks;
  return make_synthetic_trace(spec, options.seed);
}

void check_memory(const Options& options, const RoutingTrace& routing, int ranks_here) {
  // Forward and backward have a row for every choice, and its result, at the experts.
  double rows = 2;
  for (const RoutingTrace::SubLayer& sub_layer : routing.sub_layers) {
    rows += 4.0 * static_cast<double>(sub_layer.choices);
  }
  const double bytes =
      rows * static_cast<double>(options.tokens) * static_cast<double>(options.hidden) *
      static_cast<double>(size_of(options.dtype == "bfloat16" ? DType::bf16 : DType::f32));
  require_memory(bytes, ranks_here, "the exchange", "--tokens or --hidden");
}

ExchangeCase make_case(FileSystem& files, const Options& options, const Topology& topology,
                       int ranks_here) {
  const bool traced = !options.trace.empty();
  check_memory(options, {}, ranks_here);
  const RoutingTrace trace =
      traced ? load_trace(files, options) : make_trace(options, topology.ranks());
  check_memory(options, trace, ranks_here);
  const PlacementShape shape = placement_shape(trace, topology.ranks());
  return {.topology = topology,
          .placement = load_placement(files, options.placement, shape, topology),
          .layer = options.layer,
          .routing = routing_of_layer(trace, options.layer, options.tokens, topology.ranks()),
          .tokens = options.tokens,
          .hidden = options.hidden,
          .dtype = options.dtype == "bfloat16" ? DType::bf16 : DType::f32,
          .flow = chosen_flow(options.flow, shape.groups),
          .rule = chosen_rule(options.pivot, trace),
          .chunks = options.chunks};
}

/// The same on every rank, or an error on all.
ExchangeCase agree_on_case(const Options& options, Job& job) {
  agree(job.transport, {"options"}, [&] { check_sizes(options, job.transport.size()); });
  const Topology topology = find_topology(job.transport, options.node_sizes);
  const int ranks_here = ranks_on_host(job.transport);
  std::optional<ExchangeCase> measured;
  agree_patiently(job.transport, {"routing trace"},
                  [&] { measured = make_case(job.files, options, topology, ranks_here); });
  const RoutingTrace::SubLayer& last = measured->routing.sub_layers.back();
  const std::string_view ids(reinterpret_cast<const char*>(last.ids.data()),
                             last.ids.size() * sizeof(last.ids[0]));
  check_same_contents(
      job.transport, "what is measured",
      fmt::format("{} {} {}", hash_hex(hash_bytes(ids)),
                  hash_hex(hash_bytes(measured->placement.to_json())), measured->hidden));
  return std::move(*measured);
}

void validate(const ExchangeCase& measured, Transport& transport,
              std::span<ExchangePath* const> paths, const ExchangeReport& report) {
  agree_patiently(transport, {"validation"}, [&] {
    const bool root = transport.rank() == 0;
    check_results(measured, *paths[0], transport.rank(), "the exchange");
    if (root) {
      check_rows(measured, report.exchange.sum(), measured.flow, "the exchange");
    }
    if (report.alltoallv) {
      check_results(measured, *paths[1], transport.rank(), "MPI_Alltoallv");
      if (root) {
        check_rows(measured, report.alltoallv->sum(), Flow::flat, "MPI_Alltoallv");
      }
    }
  });
}

std::string describe_routing(const Options& options) {
  return options.trace.empty() ? fmt::format("seed {}", options.seed)
                               : fmt::format("{}, layer {}", options.trace, options.layer);
}

std::string describe_transport(const Options& options) {
  const auto name = [](const std::string& chosen) {
    return chosen != "auto" ? chosen : launched_by_mpi() ? "mpi" : "local";
  };
  const std::string intra = name(options.comm.intra);
  const std::string inter = name(options.comm.inter);
  return intra == inter ? inter : fmt::format("{} within nodes, {} between", intra, inter);
}

void write_report(Job& job, const Options& options, const ExchangeCase& measured,
                  const ExchangeReport& report) {
  agree_patiently(job.transport, {"report"}, [&] {
    if (job.is_root() && !options.output.empty()) {
      job.files.write_atomically(options.output, to_json(measured, report).dump(2) + "\n");
    }
  });
  if (job.is_root()) {
    print_report(measured, report);
    if (!options.output.empty()) {
      fmt::print("written: {}\n", options.output);
    }
  }
}

/// `launched`: the transport that the launcher's ranks have, MPI's if there is a launcher.
int measure(const Options& options, Job& job, Transport& launched) {
  const ExchangeCase measured = agree_on_case(options, job);
  HostAllocator allocator;
  Arena scratch(allocator);
  Context context{.threads = threads_per_rank(job.transport, options.threads),
                  .scratch = scratch,
                  .metrics = job.metrics,
                  .clock = job.clock};
  std::vector<std::unique_ptr<ExchangePath>> owned;
  owned.push_back(make_exchange_journey(measured, job.transport, context));
  std::unique_ptr<MpiAlltoallv> mpi;
  if (launched_by_mpi()) {
    mpi = make_mpi_alltoallv(launched);
    owned.push_back(make_alltoallv_journey(measured, launched.rank(), *mpi, context));
  }
  std::vector<ExchangePath*> paths;
  for (const auto& path : owned) {
    paths.push_back(path.get());
  }
  std::vector<PathReport> reports = measure_paths(job.transport, job.clock, paths, options.repeats);
  ExchangeReport report{.transport = describe_transport(options),
                        .placement = options.placement,
                        .routing = describe_routing(options),
                        .threads = context.threads,
                        .repeats = options.repeats,
                        .validated = options.validate,
                        .exchange = std::move(reports[0]),
                        .alltoallv = std::nullopt,
                        .no_alltoallv = mpi_available()
                                            ? "mpirun or another launcher has not started this"
                                            : "this build has no MPI"};
  if (mpi != nullptr) {
    report.alltoallv = std::move(reports[1]);
  }
  if (options.validate) {
    validate(measured, job.transport, paths, report);
  }
  write_report(job, options, measured, report);
  return kExitOk;
}

int bench_exchange(const Options& options, Job& job) {
  Config config;
  config.comm = options.comm;
  return run_over_transport(job, config, [&](Job& chosen) {
    return run_alive(chosen, [&] { return measure(options, chosen, job.transport); });
  });
}

void add_token_options(CLI::App* command, Options& options) {
  command->add_option("--tokens", options.tokens, "At home on each rank")
      ->check(CLI::Range(0, kMostWide))
      ->capture_default_str();
  command->add_option("--hidden", options.hidden, "Width of a row")
      ->check(CLI::Range(1, kMostWide))
      ->capture_default_str();
  command->add_option("--dtype", options.dtype, "Of rows")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  CLI::Option* trace = command->add_option(
      "--trace", options.trace,
      "Route by a layer of this trace, over and over, instead of at random (docs/formats.md)");
  command->add_option("--layer", options.layer, "Of the trace, from 0")
      ->needs(trace)
      ->check(CLI::NonNegativeNumber);
  command->add_option("--experts", options.random.experts, "Of a sub-layer")
      ->excludes(trace)
      ->check(CLI::Range(1, int{std::numeric_limits<std::int16_t>::max()}))
      ->capture_default_str();
  command->add_option("--top-k", options.random.choices, "Experts that a token chooses of them")
      ->excludes(trace)
      ->check(CLI::Range(1, 255))
      ->capture_default_str();
  command->add_option("--groups", options.random.groups, "Sub-layers: 2, A and B, or 1")
      ->excludes(trace)
      ->check(CLI::Range(1, 2))
      ->capture_default_str();
  command
      ->add_option("--prediction", options.random.prediction,
                   "Share of the speculative choices of B that are right")
      ->excludes(trace)
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--seed", options.seed, "Of random routing, every expert alike")
      ->excludes(trace)
      ->capture_default_str();
}

void add_exchange_options(CLI::App* command, Options& options) {
  command
      ->add_option(
          "--placement", options.placement,
          "Placement file of 'cartesian plan'; linear; or local: all experts in every node")
      ->capture_default_str();
  add_flow_option(*command, options.flow);
  command
      ->add_option("--pivot", options.pivot,
                   "What pivots are chosen by: speculative, table, gate, or auto: speculative if "
                   "there are such choices, else table")
      ->check(CLI::IsMember({"auto", "speculative", "table", "gate"}))
      ->capture_default_str();
  command
      ->add_option("--chunks", options.chunks,
                   "Parts of a rank's tokens that follow each other; MPI_Alltoallv has one")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
}

void add_run_options(CLI::App* command, Options& options) {
  command
      ->add_option("--node-sizes", options.node_sizes,
                   "Ranks of each node, such as 2,2; those that share a host unless given")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--intra", options.comm.intra,
                   "What the exchange travels by within a node: auto (MPI if mpirun started this, "
                   "else one rank alone), mpi, or ucx")
      ->check(CLI::IsMember({"auto", "mpi", "ucx"}))
      ->capture_default_str();
  command->add_option("--inter", options.comm.inter, "The same between nodes")
      ->check(CLI::IsMember({"auto", "mpi", "ucx"}))
      ->capture_default_str();
  command
      ->add_option("--threads", options.threads,
                   "Of each rank; its share of the cores unless given")
      ->check(CLI::Range(1, 1024));
  command->add_option("--repeats", options.repeats, "Steps that are measured, after two to warm up")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->add_flag("--validate", options.validate,
                    "Check outputs and gradients against sums computed directly, and the rows sent "
                    "against what the planner counts");
  command->add_option("-o,--output", options.output, "Write the result to this file, as JSON");
}

constexpr const char* kFooter =
    "Every step brings each token's row to its experts of A and then of B and sums back home, and "
    "the\ngradients the other way; experts only multiply rows by a number. In turn with it runs "
    "the\nsame by MPI_Alltoall of counts and MPI_Alltoallv of a row for every choice.\n\n"
    "GB/s is algorithm bandwidth, as nccl-tests and DeepEP have it: bytes that the operation must\n"
    "bring to a rank, whatever really travelled, by the time of the slowest rank. Those are one "
    "row\nfor every rank that a token's experts are on, its home's own among them, once for a "
    "dispatch\nand once for a collect or return, in the mean over the ranks.\n\n"
    "Examples:\n"
    "  mpirun -np 4 cartesian bench exchange --tokens 4096 --hidden 2048 --experts 64 --top-k 6\n"
    "  mpirun -np 8 cartesian bench exchange --tokens 4096 --hidden 7168 --experts 256 --top-k 8 "
    "\\\n"
    "    --dtype bfloat16 --flow pivot --node-sizes 4,4 -o result.json\n"
    "  mpirun -np 4 cartesian bench exchange --trace trace.safetensors --placement placement.json "
    "\\\n"
    "    --node-sizes 2,2 --validate\n"
    "  cartesian bench exchange --tokens 512 --validate";

}  // namespace

CommandFunction add_bench_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* bench = app.add_subcommand("bench", "Measure parts of the program on these ranks");
  bench->require_subcommand(1);
  CLI::App* command = bench->add_subcommand(
      "exchange", "Measure the exchange of tokens, beside MPI_Alltoallv in the same run");
  add_token_options(command, *options);
  add_exchange_options(command, *options);
  add_run_options(command, *options);
  command->footer(kFooter);
  return [options] { return run_job([&](Job& job) { return bench_exchange(*options, job); }); };
}

}  // namespace cartesian
