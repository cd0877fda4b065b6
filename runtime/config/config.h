#pragma once
// The configuration of a run: what a TOML file and --set may say, with the defaults.
// docs/configuration.md lists the keys; `cartesian train --keys` prints them.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/file_system.h"
#include "runtime/config/control_config.h"
#include "runtime/model/model_config.h"

namespace cartesian {

struct DataConfig {
  std::string train;               ///< prefix of a .bin/.idx pair
  std::string valid;               ///< likewise; empty for no validation
  std::string order = "shuffled";  ///< of training's sequences, anew every epoch; or "stored"
};

/// One number for every sub-layer, or one for A and one for B.
struct PerSubLayer {
  std::vector<double> values;  ///< not empty

  PerSubLayer(double value) : values{value} {}  // NOLINT(google-explicit-constructor): as written
  /// Of sub-layer 0 (A) or 1 (B).
  double of(std::size_t sub_layer) const { return values[sub_layer % values.size()]; }
  bool any() const;  ///< whether one is above zero
};

struct TrainConfig {
  std::int64_t steps = 1000;
  std::int64_t batch_sequences = 32;        ///< global
  std::int64_t micro_batch_sequences = 32;  ///< global
  std::int64_t sequence_length = 256;
  std::int64_t seed = 1;
  std::string dtype = "float32";  ///< or "bfloat16"
  double learning_rate = 1e-3;
  double min_learning_rate = 1e-4;  ///< where the cosine ends
  std::int64_t warmup_steps = 100;
  double weight_decay = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double clip_norm = 1.0;           ///< 0 for no clipping
  PerSubLayer balance_loss = 0.01;  ///< coefficient of the load-balancing loss
  PerSubLayer z_loss = 0;           ///< coefficient of the router z-loss
  PerSubLayer balance_bias = 0;     ///< step of the routers' biases
  PerSubLayer router_jitter = 0;    ///< relative width of the noise on a router's input
  std::string recompute = "none";   ///< or "block": what backward computes again instead of keeping
};

struct ValidConfig {
  std::int64_t every = 100;     ///< steps between validations; 0 for only at the end
  std::int64_t sequences = 64;  ///< sequences evaluated, from the start of the held-out data
};

struct CheckpointConfig {
  std::int64_t every = 500;  ///< steps between checkpoints; 0 for only at the end
  std::int64_t keep_last = 2;
  bool async = true;  ///< write while training goes on
};

struct RunConfig {
  std::string dir = "runs/run";
  std::string progress = "auto";   ///< "auto", "line" (one live line), "plain" or "off"
  double log_every_s = 5;          ///< seconds between plain progress lines
  std::int64_t experts_every = 0;  ///< steps between records of the experts' loads; 0 for 200 a run
  std::int64_t timeline_steps = 0;  ///< steps, after the first, that timeline.json shows
};

struct ParallelConfig {
  std::int64_t expert_ranks = 0;  ///< ranks over which one copy of the experts is spread; 0 for all
  std::vector<std::int64_t> node_sizes;  ///< overrides the nodes that the bootstrap finds
  std::string placement = "linear";      ///< "linear", "local" or a placement file
  std::int64_t threads = 0;              ///< OpenMP threads per rank; 0: see runtime/thread_count.h
  /// Each rank keeps AdamW's moments of its share of the dense part only.
  bool shard_optimizer = false;
};

/// Planning placements anew while training runs.
struct ReplanConfig {
  std::string when = "off";  ///< "off", "auto": windows worse than promised, or "every"
  std::int64_t every = 500;  ///< steps of a window
  std::int64_t bytes_per_step = 64 << 20;  ///< that migrate between two steps; 0: all at once
  std::int64_t horizon_steps = 1000;       ///< within which a migration must pay back
  double load_cap = 1.05;    ///< of a plan: closer than for one text, since text goes on changing
  double time_budget_s = 2;  ///< of the planner's thread
  std::string topology;      ///< TOML file with the links; empty: the planner's defaults
};

struct ExchangeConfig {
  std::string flow = "auto";          ///< "flat", "home", "pivot", or see flow_choice.h
  std::string pivot = "speculative";  ///< what pivots are chosen by, see PivotBy
  std::int64_t chunks = 1;  ///< parts of a rank's tokens that go through a MoE layer as a pipeline
};

struct CommConfig {
  /// Within a node and between nodes: "auto" (MPI under a launcher, else one process), "mpi", or
  /// "ucx", which starts over those.
  std::string intra = "auto";
  std::string inter = "auto";
  double timeout_s = 120;  ///< deadline of every wait for another rank
};

/// The end of a run waits for rank 0's planner, and the other ranks for rank 0.
inline double longest_planning_s(const CommConfig& comm) { return comm.timeout_s / 4; }

struct Config {
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  ValidConfig valid;
  CheckpointConfig checkpoint;
  RunConfig run;
  ParallelConfig parallel;
  ReplanConfig replan;
  ExchangeConfig exchange;
  CommConfig comm;
  SchedulerConfig scheduler;
  MetricsConfig metrics;
};

/// One key: where its value lives, what it may be, what it means.
struct ConfigField {
  using Target = std::variant<std::int64_t*, double*, bool*, std::string*,
                              std::vector<std::int64_t>*, PerSubLayer*>;
  std::string key;  ///< "section.key"
  Target target;
  double minimum = 0;                ///< of numbers, and of each number of a list
  std::vector<std::string> choices;  ///< of strings; empty for any
  std::string description;
  std::int64_t maximum = kLargestSize;  ///< of integers, likewise
};

/// Every key of `config`, in documentation order. The targets point into `config`.
std::vector<ConfigField> config_fields(Config& config);

/// Reads a TOML file, then applies `overrides` ("section.key=value", the value in TOML or a bare
/// string). Throws ConfigError naming file, line and key: unknown keys (with the nearest known),
/// ill-typed or out-of-range values, sizes that cannot work.
Config load_config(FileSystem& files, const Path& path, std::span<const std::string> overrides);
/// As load_config, from text; `name` stands for the file in errors.
Config parse_config(std::string_view text, std::string_view name,
                    std::span<const std::string> overrides);

/// Every key with its value, as TOML: what a run directory keeps, and what ranks compare.
std::string to_toml(const Config& config);
/// As to_toml(), with each key's meaning and allowed values as a comment: the reference of all
/// keys.
std::string to_documented_toml(const Config& config);

}  // namespace cartesian
