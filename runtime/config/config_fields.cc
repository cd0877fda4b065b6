#include "runtime/config/config.h"
#include "scheduler/job_metrics.h"

namespace cartesian {

namespace {

constexpr std::int64_t kLargestCount = std::int64_t{1} << 53;  // exact in JSON's numbers
constexpr std::int64_t kMostThreads = 1024;
constexpr std::int64_t kMostChunks = 1024;
constexpr std::int64_t kMostTimelineSteps = 1000;
constexpr std::int64_t kLargestPort = 65535;

void model_fields(ModelConfig& model, std::vector<ConfigField>& fields) {
  const auto add = [&](ConfigField field) { fields.push_back(std::move(field)); };
  add({"model.vocab_size",
       &model.vocab_size,
       2,
       {},
       "token ids; 257 for bytes and the end of a document"});
  add({"model.hidden_size", &model.hidden_size, 1, {}, "width of the residual stream"});
  add({"model.intermediate_size", &model.intermediate_size, 1, {}, "width of a dense block's FFN"});
  add({"model.num_hidden_layers", &model.num_hidden_layers, 1, {}, "blocks"});
  add({"model.num_attention_heads", &model.num_attention_heads, 1, {}, "attention heads"});
  add({"model.rms_norm_eps", &model.rms_norm_eps, 0, {}, "added to the mean square in RMSNorm"});
  add({"model.rope_theta", &model.rope_theta, 1, {}, "base of the rotary embedding's wavelengths"});
  add({"model.initializer_range",
       &model.initializer_range,
       0,
       {},
       "standard deviation of the initial weights"});
  add({"model.document_attention",
       &model.document_attention,
       0,
       {},
       "attention stops at document boundaries"});
  add({"model.sub_layers",
       &model.sub_layers,
       0,
       {},
       "0: dense, 1: conventional MoE, 2: CartesianMoE (A, then B)"});
  add({"model.num_experts", &model.num_experts, 1, {}, "routed sub-experts in each sub-layer"});
  add({"model.routing",
       &model.routing,
       0,
       {"top_k", "top_p", "hash"},
       "how a token's sub-experts are chosen"});
  add({"model.moe_top_k", &model.moe_top_k, 1, {}, "sub-experts per token in each sub-layer"});
  add({"model.moe_top_p",
       &model.moe_top_p,
       0,
       {},
       "of top_p: sub-experts are taken until their probabilities' sum exceeds this"});
  add({"model.grain_level",
       &model.grain_level,
       1,
       {},
       "experts are intermediate_size / grain_level wide"});
  add({"model.router_bias",
       &model.router_bias,
       0,
       {},
       "a bias per expert in the choice, moved by train.balance_bias"});
  add({"model.use_residual", &model.use_residual, 0, {}, "a shared expert in each sub-layer"});
  add({"model.expert_interval", &model.expert_interval, 1, {}, "blocks 0, i, 2 i, ... are MoE"});
}

void train_fields(Config& config, std::vector<ConfigField>& fields) {
  TrainConfig& train = config.train;
  const auto add = [&](ConfigField field) { fields.push_back(std::move(field)); };
  add({"data.train", &config.data.train, 0, {}, "prefix of the training tokens' .bin/.idx pair"});
  add({"data.valid",
       &config.data.valid,
       0,
       {},
       "prefix of the held-out tokens' pair; empty for no validation"});
  add({"data.order",
       &config.data.order,
       0,
       {"shuffled", "stored"},
       "of training's sequences: shuffled anew every epoch, or as the file has them"});
  add({"train.steps", &train.steps, 0, {}, "optimizer steps", kLargestCount});
  add({"train.batch_sequences",
       &train.batch_sequences,
       1,
       {},
       "sequences per step, over all ranks"});
  add({"train.micro_batch_sequences",
       &train.micro_batch_sequences,
       1,
       {},
       "sequences per forward and backward, over all ranks"});
  add({"train.sequence_length", &train.sequence_length, 1, {}, "tokens per sequence"});
  add({"train.seed",
       &train.seed,
       0,
       {},
       "of the initial weights and the order of the data",
       kLargestCount});
  add({"train.dtype",
       &train.dtype,
       0,
       {"float32", "bfloat16"},
       "of activations and matrix products"});
  add({"train.learning_rate", &train.learning_rate, 0, {}, "peak, after warm-up"});
  add({"train.min_learning_rate", &train.min_learning_rate, 0, {}, "where the cosine ends"});
  add({"train.warmup_steps", &train.warmup_steps, 0, {}, "steps of linear warm-up"});
  add({"train.weight_decay", &train.weight_decay, 0, {}, "decoupled; matrices only"});
  add({"train.beta1", &train.beta1, 0, {}, "AdamW"});
  add({"train.beta2", &train.beta2, 0, {}, "AdamW"});
  add({"train.eps", &train.eps, 0, {}, "AdamW"});
  add({"train.clip_norm",
       &train.clip_norm,
       0,
       {},
       "largest global gradient norm; 0 for no clipping"});
  add({"train.balance_loss",
       &train.balance_loss,
       0,
       {},
       "coefficient of the load-balancing loss; [A's, B's] where they differ, also below"});
  add({"train.z_loss", &train.z_loss, 0, {}, "coefficient of the router z-loss"});
  add({"train.balance_bias",
       &train.balance_bias,
       0,
       {},
       "per step, what an expert's bias moves towards even loads; above 0 sets model.router_bias"});
  add({"train.router_jitter",
       &train.router_jitter,
       0,
       {},
       "a router's input is multiplied by 1 - this to 1 + this; below 1"});
  add({"train.recompute",
       &train.recompute,
       0,
       {"none", "block"},
       "what backward computes again instead of keeping it"});
  add({"valid.every",
       &config.valid.every,
       0,
       {},
       "steps between validations; 0 for only at the end"});
  add({"valid.sequences", &config.valid.sequences, 1, {}, "held-out sequences evaluated"});
}

void run_fields(Config& config, std::vector<ConfigField>& fields) {
  const auto add = [&](ConfigField field) { fields.push_back(std::move(field)); };
  add({"checkpoint.every",
       &config.checkpoint.every,
       0,
       {},
       "steps between checkpoints; 0 for only at the end"});
  add({"checkpoint.keep_last", &config.checkpoint.keep_last, 1, {}, "complete checkpoints kept"});
  add({"checkpoint.async", &config.checkpoint.async, 0, {}, "write while training goes on"});
  add({"run.dir", &config.run.dir, 0, {}, "run directory"});
  add({"run.progress",
       &config.run.progress,
       0,
       {"auto", "line", "plain", "off"},
       "one live line, plain lines or nothing"});
  add({"run.log_every_s", &config.run.log_every_s, 0, {}, "seconds between plain progress lines"});
  add({"run.experts_every",
       &config.run.experts_every,
       0,
       {},
       "steps between records in experts.jsonl; 0 for at most 200 of them"});
  add({"run.timeline_steps",
       &config.run.timeline_steps,
       0,
       {},
       "steps, after the first, that timeline.json shows: who did what when",
       kMostTimelineSteps});
  add({"parallel.expert_ranks",
       &config.parallel.expert_ranks,
       0,
       {},
       "ranks that share one copy of the experts; 0 for all"});
  add({"parallel.node_sizes",
       &config.parallel.node_sizes,
       1,
       {},
       "ranks per node, instead of those the bootstrap finds"});
  add({"parallel.placement",
       &config.parallel.placement,
       0,
       {},
       "\"linear\", \"local\" or a placement file"});
  add({"parallel.threads",
       &config.parallel.threads,
       0,
       {},
       "threads per rank; 0: OMP_NUM_THREADS, or its share of the host's processors",
       kMostThreads});
  add({"parallel.shard_optimizer",
       &config.parallel.shard_optimizer,
       0,
       {},
       "spread AdamW's moments of the dense part over the ranks"});
  add({"exchange.flow",
       &config.exchange.flow,
       0,
       {"auto", "flat", "home", "pivot"},
       "how tokens travel between nodes"});
  add({"exchange.pivot",
       &config.exchange.pivot,
       0,
       {"speculative", "table", "gate"},
       "what pivots are chosen by"});
  add({"exchange.chunks",
       &config.exchange.chunks,
       0,
       {},
       "parts of a rank's tokens that go through a MoE layer as a pipeline; 0: the fastest of some",
       kMostChunks});
  add({"comm.intra",
       &config.comm.intra,
       0,
       {"auto", "mpi", "ucx"},
       "what training's messages within a node travel by; auto: MPI under a launcher"});
  add({"comm.inter", &config.comm.inter, 0, {"auto", "mpi", "ucx"}, "the same between nodes"});
  add({"comm.timeout_s",
       &config.comm.timeout_s,
       0.001,
       {},
       "deadline of every wait for another rank"});
}

void control_fields(Config& config, std::vector<ConfigField>& fields) {
  SchedulerConfig& scheduler = config.scheduler;
  MetricsConfig& metrics = config.metrics;
  const auto add = [&](ConfigField field) { fields.push_back(std::move(field)); };
  add({"scheduler.enabled",
       &scheduler.enabled,
       0,
       {},
       "ranks report to a coordinator beside rank 0; metrics that are served or pushed imply it"});
  add({"scheduler.address",
       &scheduler.address,
       0,
       {},
       "numeric, of rank 0's host, as the other hosts reach it; 0.0.0.0: they look its name up"});
  add({"scheduler.port", &scheduler.port, 0, {}, "there; 0: any that is free", kLargestPort});
  add({"scheduler.heartbeat_s",
       &scheduler.heartbeat_s,
       0.01,
       {},
       "between a rank's signs of life"});
  add({"scheduler.late_s", &scheduler.late_s, 0, {}, "of silence, after which a rank is late"});
  add({"scheduler.dead_s", &scheduler.dead_s, 0, {}, "likewise dead"});
  add({"metrics.address", &metrics.address, 0, {}, "numeric, where rank 0 serves metrics by HTTP"});
  add({"metrics.port",
       &metrics.port,
       -1,
       {},
       "there; 0: any that is free; -1: metrics are not served, but for metrics.discovery_file",
       kLargestPort});
  add({"metrics.experts",
       &metrics.experts,
       0,
       {},
       "MoE layers with a metric for every expert: \"none\", \"all\", or such as \"0,3\""});
  add({"metrics.window_steps",
       &metrics.window_steps,
       1,
       {},
       "last steps over which loads and rates are computed",
       JobMetricsOptions::kMostWindowSteps});
  add({"metrics.discovery_file",
       &metrics.discovery_file,
       0,
       {},
       "file that tells Prometheus the server's address (file_sd); empty: none"});
  add({"metrics.push_url",
       &metrics.push_url,
       0,
       {},
       "Pushgateway that metrics are sent to, http://HOST:PORT; empty: none"});
  add({"metrics.push_every_s", &metrics.push_every_s, 0.1, {}, "seconds between two pushes"});
  add({"metrics.job", &metrics.job, 0, {}, "name of the job in Prometheus"});
}

void replan_fields(ReplanConfig& replan, std::vector<ConfigField>& fields) {
  const auto add = [&](ConfigField field) { fields.push_back(std::move(field)); };
  add({"replan.when",
       &replan.when,
       0,
       {"off", "auto", "every"},
       "plan the placement anew while training runs: windows that are worse than promised, or "
       "all"});
  add({"replan.every", &replan.every, 1, {}, "steps of a window, whose choices are planned from"});
  add({"replan.bytes_per_step",
       &replan.bytes_per_step,
       0,
       {},
       "bytes of experts that all ranks together move between two steps; 0: all at once"});
  add({"replan.horizon_steps",
       &replan.horizon_steps,
       1,
       {},
       "steps within which moving experts must pay back"});
  add({"replan.load_cap",
       &replan.load_cap,
       1,
       {},
       "most choices on a node or rank in a plan, over the mean: closer than 'cartesian plan', "
       "since text goes on changing"});
  add({"replan.time_budget_s",
       &replan.time_budget_s,
       1e-9,
       {},
       "seconds of a plan's search on rank 0, beside training; counted in work done"});
  add({"replan.topology",
       &replan.topology,
       0,
       {},
       "TOML file with the links' speeds, as for 'cartesian plan'; empty: the planner's defaults"});
}

}  // namespace

std::vector<ConfigField> config_fields(Config& config) {
  std::vector<ConfigField> fields;
  model_fields(config.model, fields);
  train_fields(config, fields);
  run_fields(config, fields);
  control_fields(config, fields);
  replan_fields(config.replan, fields);
  return fields;
}

}  // namespace cartesian
