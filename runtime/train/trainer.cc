#include "runtime/train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "comm/collectives.h"
#include "runtime/checkpoint/checkpoint_reader.h"
#include "runtime/model/flow_choice.h"
#include "runtime/report/report.h"
#include "runtime/thread_count.h"
#include "runtime/train/environment.h"
#include "runtime/train/expert_load.h"
#include "runtime/train/job_setup.h"
#include "runtime/train/summary.h"

namespace cartesian {

namespace {

// Once a stop is asked for, the step in progress must end within this time.
constexpr Seconds kStopGrace{30};

}  // namespace

Trainer::Trainer(Job& job, Config config, const TrainOptions& options)
    : transport_(job.transport, job.clock, job.metrics),
      job_{job.files, job.clock, job.metrics, transport_, job.stop},
      stop_scope_(job.stop),
      config_(prepare_config(job_, std::move(config))),
      options_(options),
      topology_(find_topology(transport_, config_.parallel.node_sizes)),
      placement_(agreed_placement(job_, config_, topology_, options_.resume)),
      directory_(job.files, transport_, config_, options.resume),
      data_(job_, config_),
      expert_log_(config_.model,
                  expert_log_interval(config_.run.experts_every, config_.train.steps)) {
  const ModelRankOptions rank_options{
      .dtype = config_.train.dtype == "bfloat16" ? DType::bf16 : DType::f32,
      .chunks = 1,  // train_steps() says how many
      .threads = threads_per_rank(job_.transport, config_.parallel.threads),
      .recompute = config_.train.recompute == "block",
      .exchange = exchange_options(config_.exchange, config_.model, placement_.start, topology_),
      .shard_optimizer = config_.parallel.shard_optimizer};
  rank_ = std::make_unique<ModelRank>(config_.model, placement_.start, topology_, job_.transport,
                                      job_.metrics, job_.clock, rank_options);
  pivot_tally_.emplace(rank_->placement(), topology_, rank_->context().exchange.flow(),
                       job_.metrics);
  agree(job_.transport, {"replan.topology"}, [&] {
    ReplanConfig replan = config_.replan;
    replan.time_budget_s = std::min(replan.time_budget_s, longest_planning_s(config_.comm));
    replanner_ = std::make_unique<Replanner>(replan, config_.train, *rank_,
                                             replan_cluster(job_.files, replan, topology_),
                                             placement_.slots);
  });
  timeline_.emplace(config_.run.timeline_steps, job_.clock, transport_, rank_->context().times,
                    topology_);
  chunks_.emplace(config_.exchange.chunks, job_.transport.size());
  const std::optional<Path> checkpoint = directory_.last_checkpoint();
  if (options_.resume && checkpoint) {
    load_checkpoint(*checkpoint);
  } else {
    rank_->parameters().initialize(static_cast<std::uint64_t>(config_.train.seed));
  }
  rank_->pack();
  directory_.open_log(config_, step_);
  directory_.log_environment(
      describe_environment(job_, topology_, {.step = step_, .threads = rank_options.threads}));
  training_step_ = std::make_unique<TrainingStep>(config_.train, *rank_, data_.samples());
  writer_ =
      std::make_unique<CheckpointWriter>(job_.files, job_.transport, directory_.checkpoints());
  progress_ = std::make_unique<Progress>(config_.run, job_.clock, step_, config_.train.steps,
                                         job_.is_root());
  control_.emplace(
      job_, config_,
      ControlPlane::Place{.topology = topology_,
                          .placement = rank_->placement(),
                          .transport = transport_,
                          .say = [this](const std::string& text) { progress_->message(text); }});
}

void Trainer::load_checkpoint(const Path& path) {
  agree_patiently(job_.transport, {"checkpoint"}, [&] {
    CheckpointReader reader(job_.files, path);
    check_same_model(reader.model(), config_.model, path.string());
    if (!reader.trainer_state()) {
      throw FormatError(fmt::format("{}: holds no optimizer state to resume from", path.string()));
    }
    if (job_.is_root()) {
      reader.verify();
    }
    check_resumed(*reader.trainer_state(), config_, data_.train().count(), path);
    reader.read_weights(rank_->parameters());
    reader.read_moments(rank_->parameters());
    step_ = reader.trainer_state()->step;
  });
  saved_at_ = step_;
  committed_at_ = step_;
  last_checkpoint_ = path;
}

int Trainer::run() {
  return control_->run([this] { return train(); });
}

int Trainer::train() {
  if (options_.resume && job_.is_root()) {
    progress_->message(step_ > 0 ? fmt::format("resumed from {}", last_checkpoint_.string())
                                 : "no checkpoint to resume from: starting at step 0");
  }
  if (!placement_.note.empty()) {
    progress_->message(placement_.note);
  }
  stop_scope_.set_callback([this] {
    job_.transport.set_timeout(std::min(kStopGrace, Seconds(config_.comm.timeout_s)));
  });
  train_steps();
  // The step in progress has ended: writing may take its time again.
  stop_scope_.set_callback({});
  job_.transport.set_timeout(Seconds(config_.comm.timeout_s));
  job_.transport.set_step(-1);
  if (writer_->in_progress()) {
    commit_checkpoint();
  }
  if (saved_at_ != step_) {
    prove_weights();
    begin_checkpoint();
    commit_checkpoint();
  }
  if (step_ < config_.train.steps) {
    progress_->message(
        fmt::format("stopped at step {} with a checkpoint at {}; run again with --resume to go on",
                    step_, last_checkpoint_.string()));
    return kExitStopped;
  }
  finish();
  write_report();
  return kExitOk;
}

void Trainer::train_steps() {
  bool stop = options_.stop_at > 0 && step_ >= options_.stop_at;
  while (step_ < config_.train.steps && !stop) {
    job_.transport.set_step(step_ + 1);
    rank_->context().times.clear();
    rank_->context().chunks = chunks_->chunks();
    timeline_->begin_step();
    control_->begin_step(step_ + 1);
    const Seconds waited = transport_.waited();
    const Seconds start = job_.clock.now();
    rank_->context().on_route = [this](const RoutedChunk& chunk) {
      expert_log_.route(chunk);
      pivot_tally_->route(chunk);
      control_->route(chunk);
      replanner_->route(chunk);
    };
    const StepResult result = training_step_->run(step_);
    rank_->context().on_route = {};
    ++step_;
    const StepTimes times{.duration = job_.clock.now() - start,
                          .waited = transport_.waited() - waited};
    control_->end_step();
    end_timeline_step();
    if (const std::string chosen = chunks_->took(rank_->context().op, transport_, times.duration);
        !chosen.empty()) {
      progress_->message(chosen);
    }
    stop = after_step(result, times);
  }
}

bool Trainer::after_step(const StepResult& result, const StepTimes& times) {
  expert_log_.add_step(result.loads);
  const bool last = step_ == config_.train.steps;
  const auto [asked, planned, sent, sent_here, command] = agree_on_step();
  const bool stop = asked || (command && command->kind == kStopCommand);
  report_step(result, times, sent);
  control_->report({step_, result, times, sent_here, rank_->context().times, replanner_->counts(),
                    committed_at_});
  // A stop that was asked for does not wait for a validation.
  const bool due = config_.valid.every > 0 && step_ % config_.valid.every == 0 && !stop;
  if (data_.valid() && (last || due)) {
    if (writer_->in_progress()) {  // it is good, whatever validation says of the weights of now
      commit_checkpoint();
    }
    validate();
  }
  const bool save = (config_.checkpoint.every > 0 && step_ % config_.checkpoint.every == 0) ||
                    (command && command->kind == kCheckpointCommand);
  if (save && !stop && !last && step_ != options_.stop_at) {
    if (writer_->in_progress()) {
      commit_checkpoint();
    }
    begin_checkpoint();
    if (!config_.checkpoint.async) {
      writer_->wait();
    }
  }
  const bool ends = stop || step_ == options_.stop_at;
  if (!ends && !last) {  // else with the checkpoint that follows
    report_experts(false);
    if (command && command->kind == kReplanCommand) {
      replanner_->request();
      if (!replanner_->able()) {
        progress_->message("replan: one rank, or a model without experts, has nothing to place");
      }
    }
    replan(planned);
  }
  return ends;
}

void Trainer::replan(bool planned) {
  const Seconds start = job_.clock.now();
  replanner_->set_stragglers(control_->stragglers());
  ReplanNews news = replanner_->after_step(step_, planned);
  if (!news.message.empty()) {
    progress_->message(news.message);
  }
  if (news.moved) {
    news.record["migration_s"] = (job_.clock.now() - start).count();
    directory_.write_placement(rank_->placement().to_json());
    control_->moved(rank_->placement(), replanner_->counts().version);
  }
  if (!news.record.is_null()) {
    directory_.log_plan(news.record);
  }
}

TrafficSums Trainer::take_traffic() {
  const auto counted = std::bit_cast<TrafficSums>(traffic_so_far(job_.metrics));
  const TrafficSums before = std::exchange(counted_, counted);
  TrafficSums here{};
  std::ranges::transform(counted, before, here.begin(), std::minus<>());
  return here;
}

Trainer::Agreement Trainer::agree_on_step() {
  // One sum tells every rank what all of them want: to stop, whose share of a checkpoint is on
  // disk, that a plan is there, and which command all have.
  const TrafficSums here = take_traffic();
  const ControlPlane::Vote vote = control_->vote(step_ + 1);
  std::array<double, 3 + vote.size() + here.size()> sums = {job_.stop.requested() ? 1.0 : 0.0,
                                                            writer_->written() ? 1.0 : 0.0,
                                                            replanner_->ready() ? 1.0 : 0.0};
  const auto votes = std::span(sums).subspan<3, vote.size()>();
  const auto traffic = std::span(sums).subspan<3 + vote.size()>();
  std::ranges::copy(vote, votes.begin());
  std::ranges::copy(here, traffic.begin());
  all_reduce_sum(rank_->context().op, job_.transport, Team::world(job_.transport),
                 std::span<double>(sums), {"stop or go"});
  if (writer_->in_progress() && sums[1] == job_.transport.size()) {
    commit_checkpoint();
  }
  TrafficSums sent{};
  std::ranges::copy(traffic, sent.begin());
  return {.stop = sums[0] > 0,
          .planned = sums[2] > 0,
          .sent = std::bit_cast<StepTraffic>(sent),
          .sent_here = std::bit_cast<StepTraffic>(here),
          .command = control_->agreed(votes, step_ + 1)};
}

void Trainer::report_step(const StepResult& result, const StepTimes& times_of_step,
                          const StepTraffic& sent) {
  if (step_ == 1) {
    first_loss_ = result.loss;
  }
  const auto tokens =
      static_cast<double>(config_.train.batch_sequences * config_.train.sequence_length);
  const PhaseTimes& times = rank_->context().times;
  const double exchange = (times[Phase::exchange] + times[Phase::gradient_sync]).count();
  const ProgressReport report{.step = step_,
                              .loss = result.loss,
                              .tokens_per_s = tokens / times_of_step.duration.count(),
                              .balancedness = mean_balancedness(result.loads),
                              .exchange_share = exchange / times_of_step.duration.count()};
  progress_->step(report);
  directory_.log(step_record(report, result, times_of_step, sent, *rank_));
}

void Trainer::end_timeline_step() {
  if (const std::optional<std::string> json = timeline_->end_step()) {
    progress_->message(fmt::format("timeline: {}; https://ui.perfetto.dev shows it",
                                   directory_.write_timeline(*json).string()));
  }
}

void Trainer::report_experts(bool now) {
  if (const auto record = expert_log_.take(rank_->context().op, job_.transport, step_, now)) {
    directory_.log_experts(*record);
  }
}

void Trainer::require_finite(const EvaluationResult& result) const {
  if (!std::isfinite(result.loss)) {
    throw NumericError(fmt::format("step {}: the loss is not finite with the weights of this step; "
                                   "they are not saved",
                                   step_),
                       /*on_every_rank=*/true);
  }
}

void Trainer::validate() {
  last_evaluation_ = evaluate(*rank_, *data_.valid(), config_.valid.sequences);
  take_traffic();  // of no step
  require_finite(*last_evaluation_);
  evaluated_at_ = step_;
  progress_->message(fmt::format("step {}: held-out loss {:.4f}, perplexity {:.3f} over {} tokens",
                                 step_, last_evaluation_->loss, last_evaluation_->perplexity(),
                                 format_count(static_cast<double>(last_evaluation_->tokens))));
  directory_.log({{"step", step_},
                  {"valid_loss", last_evaluation_->loss},
                  {"valid_perplexity", last_evaluation_->perplexity()},
                  {"valid_dead_experts", dead_experts(last_evaluation_->loads)}});
}

void Trainer::prove_weights() {
  if (evaluated_at_ != step_ && step_ > 0) {
    require_finite(evaluate(*rank_, data_.train(), job_.transport.size()));
  }
}

void Trainer::begin_checkpoint() {
  report_experts(true);  // a run that goes on from here knows nothing of an interval in progress
  writer_->begin(rank_->parameters(), {.model = config_.model,
                                       .state = {.step = step_,
                                                 .sequences = step_ * config_.train.batch_sequences,
                                                 .seed = config_.train.seed,
                                                 .sequence_length = config_.train.sequence_length,
                                                 .windows = data_.train().count(),
                                                 .order = config_.data.order},
                                       .tokenizer_json = data_.tokenizer_json()});
  saved_at_ = step_;
}

void Trainer::commit_checkpoint() {
  last_checkpoint_ = writer_->commit();
  committed_at_ = saved_at_;
  if (!job_.is_root()) {
    return;
  }
  try {
    remove_old_checkpoints(job_.files, directory_.checkpoints(), config_.checkpoint.keep_last);
  } catch (const FileError& error) {  // the new checkpoint is complete: no reason to end the run
    progress_->message(fmt::format("an old checkpoint is still there: {}", error.what()));
  }
}

void Trainer::finish() {
  if (!data_.valid()) {
    progress_->message(fmt::format("done; checkpoint: {}", last_checkpoint_.string()));
    return;
  }
  if (evaluated_at_ != step_) {
    validate();
  }
  std::optional<Summary> summary;
  agree_patiently(job_.transport, {"summary"}, [&] {
    if (job_.is_root()) {
      summary = summarize(data_.train_file(), *data_.valid(), config_, *last_evaluation_,
                          last_checkpoint_);
      directory_.write_summary(to_json(*summary));
    }
  });
  if (summary) {
    progress_->message(to_text(*summary));
  }
}

void Trainer::write_report() {
  std::string message;
  agree_patiently(job_.transport, {"report"}, [&] {
    if (job_.is_root()) {
      message = try_write_report(job_.files, directory_.path());
    }
  });
  if (job_.is_root()) {
    progress_->message(message);
  }
}

}  // namespace cartesian
