#include "runtime/train/control_plane.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <thread>
#include <utility>

#include "base/error.h"
#include "comm/collectives.h"
#include "runtime/train/coordinator_address.h"

namespace cartesian {

namespace {

/// Pairs are in every tenth report of a rank, and each step in those of a tenth of the ranks.
constexpr std::int64_t kPairsEvery = 10;
/// Of a command's id, in a vote: so many that squares, summed over thousands of ranks, are exact.
constexpr std::uint64_t kIdBits = (std::uint64_t{1} << 20) - 1;
/// For which the end of a job may wait for goodbyes: of a job in order, and of one that failed,
/// whose other ranks wait to be told.
constexpr Seconds kGoodbye{2};
constexpr Seconds kLastWords{0.5};
constexpr std::chrono::milliseconds kBetweenLooks{2};

/// Proven ranks may report as fast as they step; strangers are held off by their number.
SessionLimits session_limits(const SchedulerConfig& config) {
  return {.silence = Seconds(config.dead_s), .messages_per_s = 1e5, .burst = 1e5};
}

/// A rank that is twice as late as late_s with its first word is overdue.
CoordinatorOptions coordinator_options(const SchedulerConfig& config) {
  return {.address = config.address,
          .port = static_cast<std::uint16_t>(config.port),
          .session = session_limits(config),
          .job = {.late = Seconds(config.late_s),
                  .dead = Seconds(config.dead_s),
                  .absent = Seconds(2 * config.late_s)}};
}

JobSecret job_secret() {
  const char* const given =
      std::getenv(ControlPlane::kSecretVariable);  // NOLINT(concurrency-mt-unsafe)
  try {
    return given != nullptr ? JobSecret::from_hex(given) : JobSecret::random();
  } catch (const ConfigError& error) {
    throw ConfigError(fmt::format("{}: {}", ControlPlane::kSecretVariable, error.what()));
  }
}

bool wants_metrics(const Config& config) {
  return config.metrics.served() || !config.metrics.push_url.empty();
}

std::string reason_of(int exit_code) {
  return exit_code == kExitOk        ? "done"
         : exit_code == kExitStopped ? "stopped with a checkpoint"
                                     : "failed";
}

}  // namespace

bool wants_control_plane(const Config& config) {
  return config.scheduler.enabled || wants_metrics(config);
}

JobShape job_shape(const Config& config, const Topology& topology, std::vector<std::string> hosts) {
  const ModelConfig& model = config.model;
  JobShape shape{
      .ranks = topology.ranks(), .node_of_rank = {}, .hosts = std::move(hosts), .phases = {}};
  for (int rank = 0; rank < topology.ranks(); ++rank) {
    shape.node_of_rank.push_back(topology.node(rank));
  }
  if (model.sub_layers > 0) {
    shape.layers = static_cast<int>(model.moe_layers());
    shape.groups = static_cast<int>(model.sub_layers);
    shape.experts = static_cast<int>(model.num_experts);
  }
  for (std::size_t i = 0; i < kPhases; ++i) {
    shape.phases.emplace_back(name_of(static_cast<Phase>(i)));
  }
  constexpr int kForwardAndBackward = 4;
  constexpr int kForwardTwice = 6;
  shape.ways = config.train.recompute == "block" ? kForwardTwice : kForwardAndBackward;
  return shape;
}

ControlPlane::ControlPlane(Job& job, const Config& config, const Place& place)
    : transport_(place.transport), say_(place.say), tokens_(0) {
  if (!wants_control_plane(config)) {
    return;
  }
  const TrainConfig& train = config.train;
  const auto share =
      sequences_of_rank(train.micro_batch_sequences, job.transport.rank(), job.transport.size());
  tokens_ =
      share.count * train.sequence_length * (train.batch_sequences / train.micro_batch_sequences);
  shape_ = job_shape(config, place.topology,
                     all_gather(job.transport, job.transport.host(), {"control plane"}));
  counts_.emplace(shape_);
  std::string door;  // port and secret; the data plane is trusted
  agree(job.transport, {"control plane"}, [&] {
    if (job.is_root()) {
      const JobSecret secret = job_secret();
      start_coordinator(job, config, place, secret);
      door = fmt::format("{} {}", secret.hex(), coordinator_->port());
    }
  });
  broadcast(job.transport, 0, door, {"control plane"});
  const auto space = door.find(' ');
  agree_patiently(job.transport, {"control plane"}, [&] {  // rank 0's host may be looked up
    agent_ = std::make_unique<Agent>(
        AgentOptions{.address = coordinator_address(config.scheduler.address, shape_.hosts[0],
                                                    job.transport.host()),
                     .port = static_cast<std::uint16_t>(std::stoi(door.substr(space + 1))),
                     .rank = job.transport.rank(),
                     .ranks = job.transport.size(),
                     .host = job.transport.host(),
                     .heartbeat = Seconds(config.scheduler.heartbeat_s),
                     .session = session_limits(config.scheduler)},
        JobSecret::from_hex(door.substr(0, space)));
  });
}

void ControlPlane::start_coordinator(Job& job, const Config& config, const Place& place,
                                     const JobSecret& secret) {
  const std::string& address = config.scheduler.address;
  address_ = is_every_address(address) ? shape_.hosts[0] : address;
  coordinator_ =
      std::make_unique<Coordinator>(coordinator_options(config.scheduler), shape_, secret);
  desk_ = std::make_unique<CommandDesk>(job.files, job.clock, *coordinator_,
                                        Path(config.run.dir) / kCommandFile, place.say);
  if (wants_metrics(config)) {
    endpoint_ =
        std::make_unique<MetricsEndpoint>(job, config, *coordinator_, place.placement, place.say);
  }
}

void ControlPlane::begin_step(std::int64_t step) {
  if (agent_ != nullptr) {
    counts_->begin_step((step + transport_.rank()) % kPairsEvery == 0);
    waits_.assign(transport_.waited_by_peer().begin(), transport_.waited_by_peer().end());
  }
}

void ControlPlane::route(const RoutedChunk& chunk) {
  if (agent_ != nullptr) {
    counts_->route(chunk);
  }
}

void ControlPlane::end_step() {
  if (agent_ != nullptr) {
    std::ranges::transform(transport_.waited_by_peer(), waits_, waits_.begin(), std::minus<>());
  }
}

void ControlPlane::report(const ReportedStep& step) {
  if (agent_ == nullptr) {
    return;
  }
  const auto count = [](double value) { return static_cast<std::int64_t>(value); };
  StepReport report{.step = step.step,
                    .loss = step.result.loss,
                    .gradient_norm = step.result.gradient_norm,
                    .learning_rate = step.result.learning_rate,
                    .checkpoint_step = step.checkpoint_step,
                    .step_s = step.times.duration.count(),
                    .wait_s = step.times.waited.count(),
                    .phase_s = {},
                    .tokens = tokens_,
                    .intra_bytes = count(step.sent.intra_bytes),
                    .inter_bytes = count(step.sent.inter_bytes),
                    .intra_rows = count(step.sent.intra_rows),
                    .inter_rows = count(step.sent.inter_rows),
                    .pivots = count(step.sent.pivots),
                    .pivot_hits = count(step.sent.pivot_hits),
                    .loads = counts_->loads(),
                    .co_activation = counts_->pairs(),
                    .waits_by_peer = waits_};
  if (transport_.rank() == 0) {
    report.plan_version = step.plans.version;
    report.plans_adopted = step.plans.adopted;
    report.plans_rejected = step.plans.rejected;
    report.plans_failed = step.plans.failed;
    report.migrated_bytes = count(step.plans.migrated_bytes);
  }
  for (std::size_t i = 0; i < kPhases; ++i) {
    report.phase_s.push_back(step.phases[static_cast<Phase>(i)].count());
  }
  agent_->report(std::move(report));
}

void ControlPlane::moved(const Placement& placement, std::int64_t version) {
  if (endpoint_ != nullptr) {
    endpoint_->monitor().set_placement(placement, version);
  }
}

ControlPlane::Vote ControlPlane::vote(std::int64_t next_step) {
  voted_.reset();
  if (agent_ == nullptr) {
    return {};
  }
  while (std::optional<Command> command = agent_->take_command(next_step)) {
    if (!voted_ || command->id < voted_->id) {  // one a step; the desk sends others anew
      voted_ = std::move(command);
    }
  }
  if (!voted_) {
    return {};
  }
  const auto id = static_cast<double>(voted_->id & kIdBits);
  return {1, id, id * id};
}

std::optional<Command> ControlPlane::agreed(std::span<const double> votes, std::int64_t next_step) {
  // That all votes are the same shows in their sum and the sum of their squares.
  const double ranks = transport_.size();
  std::optional<Command> command;
  if (voted_ && votes[0] == ranks) {
    const auto id = static_cast<double>(voted_->id & kIdBits);
    if (votes[1] == ranks * id && votes[2] == ranks * id * id) {
      command = std::move(voted_);
    }
  }
  if (desk_ != nullptr) {
    desk_->attend(next_step, command ? command->id : 0);
  }
  if (endpoint_ != nullptr) {
    endpoint_->attend();
  }
  if (coordinator_ != nullptr) {
    tell_of_standing(next_step - 1);
  }
  return command;
}

void ControlPlane::tell_of_standing(std::int64_t step) {
  JobStanding now = coordinator_->standing();
  if (!now.overdue.empty() && !told_overdue_) {
    told_overdue_ = true;
    tell_of_overdue(now.overdue);
  }
  for (const std::string& sentence : straggler_news(told_, now.stragglers, shape_, now.blind)) {
    say_(fmt::format("step {}: {}", step, sentence));
  }
  told_ = std::move(now.stragglers);
}

void ControlPlane::tell_of_overdue(const std::vector<int>& ranks) {
  const std::vector<std::string> troubles = coordinator_->last_troubles();
  say_(fmt::format(
      "control plane: not heard of yet: {}. Their reports are missing, and nobody is named as a "
      "straggler without them. Can their hosts reach rank 0 at {} port {}?{}{}",
      list_ranks(ranks, shape_), address_, coordinator_->port(),
      troubles.empty() ? "" : " The last connection that failed: ",
      troubles.empty() ? "" : troubles.back()));
}

int ControlPlane::run(const std::function<int()>& work) {
  try {
    const int exit_code = work();
    finish(exit_code, reason_of(exit_code));
    return exit_code;
  } catch (const std::exception& error) {
    finish(kExitError, error.what());
    throw;
  }
}

void ControlPlane::finish(int exit_code, const std::string& reason) {
  if (agent_ == nullptr) {
    return;
  }
  if (desk_ != nullptr) {
    desk_->close();
  }
  const Seconds limit = exit_code == kExitError ? kLastWords : kGoodbye;
  // A coordinator that is gone hears no last words, and the other ranks wait for this one's.
  const AgentStatus status = agent_->status();
  if (exit_code != kExitError || status.registered || status.trouble.empty()) {
    agent_->finish(exit_code, reason, limit);
  }
  if (coordinator_ != nullptr && exit_code != kExitError) {  // the others come to their end, too
    const SteadyClock clock;
    const Seconds deadline = clock.now() + limit;
    const auto ended = [&] {
      bool over = false;
      coordinator_->inspect([&](const JobState& state) { over = state.over(); });
      return over;
    };
    while (!ended() && clock.now() < deadline) {
      std::this_thread::sleep_for(kBetweenLooks);
    }
  }
  if (endpoint_ != nullptr) {
    endpoint_->finish(limit, exit_code);
  }
  endpoint_.reset();  // an error may end the process before anything is destroyed
}

}  // namespace cartesian
