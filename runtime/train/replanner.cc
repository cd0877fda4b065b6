#include "runtime/train/replanner.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <string_view>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "comm/collectives.h"
#include "planner/replan.h"
#include "runtime/train/slowed_cluster.h"

namespace cartesian {

namespace {

constexpr int kPlannerNice = 10;
constexpr double kMiB = 1024.0 * 1024.0;
// Tokens of a window that are planned from: the planner's time grows with them.
constexpr std::int64_t kSampleTokens = 16384;
// Of a window must be over before a request ends it: plans from few tokens are plans for those
// alone.
constexpr std::int64_t kLeastPart = 16;
// A window is planned, with `auto`, if it is worse than what was promised by so much.
constexpr double kWorse = 1.05;

std::int64_t sample_every(const ReplanConfig& config, double tokens_per_step) {
  const double tokens = tokens_per_step * static_cast<double>(config.every);
  return std::max<std::int64_t>(1, std::llround(std::ceil(tokens / kSampleTokens)));
}

/// Weights and both moments, float32.
double moving_bytes(const ModelConfig& model) {
  constexpr double kMatrices = 3;
  constexpr double kArrays = 3;
  return kArrays * sizeof(float) * kMatrices * static_cast<double>(model.hidden_size) *
         static_cast<double>(model.expert_width());
}

/// Whatever their factors.
bool same(const std::vector<Straggler>& a, const std::vector<Straggler>& b) {
  return std::ranges::is_permutation(a, b, [](const Straggler& one, const Straggler& other) {
    return one.kind == other.kind && one.number == other.number;
  });
}

std::string_view name_of(ReplanOutcome outcome) {
  switch (outcome) {
    case ReplanOutcome::adopted:
      return "adopted";
    case ReplanOutcome::rejected:
      return "rejected";
    case ReplanOutcome::not_needed:
      return "not needed";
    case ReplanOutcome::failed:
      return "failed";
  }
  return "unknown";
}

std::string describe_adopted(std::int64_t step, const Replan& replan, Flow flow,
                             std::size_t portions) {
  const double before = replan.before.of(flow);
  const double fewer = before > 0 ? 100 * (1 - replan.planned.of(flow) / before) : 0;
  return fmt::format("step {}: a plan with {:.0f}% fewer copies, {:.1f} MiB to move in {} step{}",
                     step, fewer,
                     (replan.migration.inter_bytes + replan.migration.intra_bytes) / kMiB, portions,
                     portions == 1 ? "" : "s");
}

/// Of what was planned, whether it is adopted or not.
void record_plan(const Replan& replan, Flow flow, nlohmann::ordered_json& record) {
  record["plan_copies_before"] = replan.before.of(flow);
  record["plan_copies_after"] = replan.planned.of(flow);
  record["plan_imbalance_before"] = replan.before.rank_imbalance;
  record["plan_imbalance_after"] = replan.planned.rank_imbalance;
  record["plan_step_s_before"] = replan.before.time.total();
  record["plan_step_s_after"] = replan.planned.time.total();
  record["plan_moving_s"] = replan.migration.seconds;
}

}  // namespace

struct Replanner::Planning {
  Planning(RoutingTrace of_window, const Cluster& on, Placement now, PlanOptions how)
      : trace(std::move(of_window)), cluster(on), running(std::move(now)), options(how) {
    options.running = &running;
  }

  /// Plans, unless the window is as good as was promised.
  void run(const std::optional<PlacementCosts>& promised) noexcept {
    try {
      outcome = plan(promised);
    } catch (const std::exception& error) {
      failure = error.what();
    }
    done = true;
  }
  ReplanOutcome plan(const std::optional<PlacementCosts>& promised) {
    if (trace.tokens == 0) {
      throw Error("the window has no token in its sample");
    }
    const PlacementCosts now = evaluate_placement(trace, cluster, running, options);
    if (promised) {
      if (now.of(options.flow) <= kWorse * promised->of(options.flow) &&
          now.rank_imbalance <= kWorse * promised->rank_imbalance &&
          now.time.total() <= kWorse * promised->time.total()) {
        return ReplanOutcome::not_needed;
      }
    }
    replan.emplace(replan_placement(trace, cluster, options));
    promise = replan->moves ? replan->planned : now;
    return replan->moves ? ReplanOutcome::adopted : ReplanOutcome::rejected;
  }

  RoutingTrace trace;
  Cluster cluster;
  Placement running;
  PlanOptions options;
  ReplanOutcome outcome = ReplanOutcome::failed;
  std::string failure;
  std::optional<Replan> replan;
  std::vector<Straggler> stragglers;  ///< that `cluster` is slowed by
  PlacementCosts promise;             ///< of the placement that is in force then
  std::atomic<bool> done = false;     ///< until then all of this is the thread's
  std::thread thread;
};

Replanner::Replanner(const ReplanConfig& config, const TrainConfig& train, ModelRank& rank,
                     Cluster cluster, int slots)
    : when_(config.when),
      every_(config.every),
      horizon_steps_(config.horizon_steps),
      load_cap_(config.load_cap),
      time_budget_s_(config.time_budget_s),
      tokens_per_step_(static_cast<double>(train.batch_sequences * train.sequence_length)),
      rank_(rank),
      cluster_(std::move(cluster)),
      slots_(slots),
      able_(rank.transport().size() > 1 && rank.model().config().sub_layers > 0),
      sample_(rank.model().config(), rank.context().dtype, static_cast<std::uint64_t>(train.seed),
              sample_every(config, tokens_per_step_)) {
  limits_.expert_bytes = moving_bytes(rank.model().config());
  limits_.bytes_per_portion = static_cast<double>(config.bytes_per_step);
}

Replanner::~Replanner() {
  if (thread_ && thread_->thread.joinable()) {
    thread_->thread.join();
  }
}

void Replanner::route(const RoutedChunk& chunk) {
  if (collects() && !planning_ && !way_) {
    sample_.route(chunk, rank_.context().training.first_token);
  }
}

bool Replanner::ready() const { return thread_ && thread_->done; }

ReplanNews Replanner::after_step(std::int64_t step, bool ready) {
  if (planning_) {
    return ready ? hear(step) : ReplanNews{};
  }
  if (way_) {
    return move(step);
  }
  if (!collects()) {
    return {};
  }
  ++steps_;
  const bool enough = requested_ && when_ != "off" && steps_ >= every_ / kLeastPart;
  if (steps_ >= every_ || enough) {
    begin_planning(std::exchange(requested_, false));
  }
  return {};
}

void Replanner::begin_planning(bool asked) {
  steps_ = 0;
  planning_ = true;
  RoutingTrace trace = sample_.take(rank_.transport());
  if (rank_.transport().rank() != 0) {
    return;
  }
  const PlanOptions options{.flow = rank_.context().exchange.flow(),
                            .load_cap = load_cap_,
                            .slots = slots_,
                            .tokens_per_step = tokens_per_step_,
                            .time_budget_s = time_budget_s_,
                            .horizon_steps = static_cast<double>(horizon_steps_)};
  thread_ = std::make_unique<Planning>(std::move(trace), slowed(cluster_, stragglers_),
                                       rank_.placement(), options);
  thread_->stragglers = stragglers_;
  const bool same_stragglers = same(stragglers_, planned_for_);
  std::optional<PlacementCosts> promised;
  if (when_ == "auto" && !asked && same_stragglers && promised_) {
    promised = *promised_;
  }
  thread_->thread = std::thread([planning = thread_.get(), promised] {
    setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kPlannerNice);  // training goes first
    planning->run(promised);
  });
}

ReplanNews Replanner::hear(std::int64_t step) {
  planning_ = false;
  const std::unique_ptr<Planning> planning = std::exchange(thread_, nullptr);
  std::string told;  // an outcome, and of a plan that is adopted the placement
  if (planning) {
    planning->thread.join();
    told.push_back(static_cast<char>(planning->outcome));
    if (planning->outcome == ReplanOutcome::adopted) {
      told += planning->replan->placement.to_json();
    }
  }
  broadcast(rank_.transport(), 0, told, {"plan"});
  const auto outcome = static_cast<ReplanOutcome>(told.at(0));
  count(outcome);
  if (outcome == ReplanOutcome::adopted) {
    way_.emplace(rank_.placement(),
                 Placement::parse(told.substr(1), "the plan", rank_.placement().shape()), limits_);
  }
  ReplanNews news;
  if (planning) {
    news = tell(step, *planning);
  }
  if (outcome == ReplanOutcome::adopted) {
    ReplanNews moved = move(step);
    news.record.update(moved.record);
    news.moved = true;
  }
  return news;
}

void Replanner::count(ReplanOutcome outcome) {
  switch (outcome) {
    case ReplanOutcome::adopted:
      ++counts_.version;
      ++counts_.adopted;
      break;
    case ReplanOutcome::rejected:
      ++counts_.rejected;
      break;
    case ReplanOutcome::failed:
      ++counts_.failed;
      break;
    case ReplanOutcome::not_needed:
      break;
  }
}

ReplanNews Replanner::tell(std::int64_t step, const Planning& planning) {
  ReplanNews news{
      .message = {},
      .record = {
          {"step", step}, {"plan", name_of(planning.outcome)}, {"plan_version", counts_.version}}};
  const Flow flow = planning.options.flow;
  if (planning.replan) {
    const Replan& replan = *planning.replan;
    promised_ = std::make_unique<PlacementCosts>(planning.promise);
    planned_for_ = planning.stragglers;
    record_plan(replan, flow, news.record);
    for (const Straggler& slow : planned_for_) {
      news.record[slow.kind == Straggler::Kind::rank ? "slow_ranks" : "slow_nodes"].push_back(
          slow.number);
    }
  }
  switch (planning.outcome) {
    case ReplanOutcome::adopted:
      news.message = describe_adopted(step, *planning.replan, flow, way_->portions_left());
      break;
    case ReplanOutcome::rejected:
      news.message =
          fmt::format("step {}: no plan that pays back within {} steps", step, horizon_steps_);
      break;
    case ReplanOutcome::failed:
      news.message = fmt::format("step {}: planning failed: {}", step, planning.failure);
      news.record["reason"] = planning.failure;
      break;
    case ReplanOutcome::not_needed:
      break;
  }
  return news;
}

ReplanNews Replanner::move(std::int64_t step) {
  const std::optional<MigrationPortion> portion = way_->next();
  check(portion.has_value(), "a way that is not done has a portion");
  rank_.adopt(portion->placement);
  counts_.migrated_bytes += portion->bytes;
  if (way_->done()) {
    way_.reset();
  }
  return {.message = {},
          .record = {{"step", step},
                     {"plan_version", counts_.version},
                     {"moved_replicas", portion->replicas},
                     {"moved_bytes", portion->bytes}},
          .moved = true};
}

Cluster replan_cluster(FileSystem& files, const ReplanConfig& config, const Topology& topology) {
  Cluster cluster = uniform_cluster(1, 1);
  if (!config.topology.empty()) {
    cluster = load_cluster(files, config.topology);
    if (cluster.topology.ranks() != topology.ranks() ||
        cluster.topology.nodes() != topology.nodes()) {
      throw ConfigError(fmt::format(
          "replan.topology = \"{}\" has {} ranks on {} nodes, but this job has {} on {}",
          config.topology, cluster.topology.ranks(), cluster.topology.nodes(), topology.ranks(),
          topology.nodes()));
    }
  }
  cluster.topology = topology;
  return cluster;
}

}  // namespace cartesian
