#include "runtime/train/replanner.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <iterator>
#include <string_view>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "comm/collectives.h"
#include "planner/replan.h"

namespace cartesian {

namespace {

constexpr double kMiB = 1024.0 * 1024.0;
// Tokens of a window that are planned from: the planner's time grows with them.
constexpr std::int64_t kSampleTokens = 16384;
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

/// Numbers in a row, for the way from rank 0 to all.
std::string to_bytes(const Placement& placement) {
  std::vector<float> values;  // ranks are exact in them
  const PlacementShape& shape = placement.shape();
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int group = 0; group < shape.groups; ++group) {
      for (int expert = 0; expert < shape.experts; ++expert) {
        const auto ranks = placement.replicas(layer, group, expert);
        values.push_back(static_cast<float>(ranks.size()));
        values.insert(values.end(), ranks.begin(), ranks.end());
      }
    }
  }
  for (int layer = 0; layer < shape.layers && placement.score_nodes() > 0; ++layer) {
    for (int expert = 0; expert < shape.experts; ++expert) {
      const auto scores = placement.pivot_scores(layer, expert);
      values.insert(values.end(), scores.begin(), scores.end());
    }
  }
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::size_t count_portions(PortionedMigration way) {
  std::size_t count = 0;
  for (; !way.done(); ++count) {
    way.next();
  }
  return count;
}

std::string describe_adopted(std::int64_t step, const Replan& replan, Flow flow,
                             std::size_t portions) {
  const double before = replan.before.of(flow);
  const double fewer = before > 0 ? 100 * (1 - replan.after.of(flow) / before) : 0;
  return fmt::format("step {}: a plan with {:.0f}% fewer copies, {:.1f} MiB to move in {} step{}",
                     step, fewer,
                     (replan.migration.inter_bytes + replan.migration.intra_bytes) / kMiB, portions,
                     portions == 1 ? "" : "s");
}

Placement from_bytes(const std::string& bytes, const PlacementShape& shape, int nodes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  auto at = values.begin();
  std::vector<std::vector<int>> replicas;
  for (int i = 0; i < shape.layers * shape.groups * shape.experts; ++i) {
    const auto count = static_cast<std::ptrdiff_t>(*at++);
    auto& ranks = replicas.emplace_back();
    std::transform(at, at + count, std::back_inserter(ranks),
                   [](float rank) { return static_cast<int>(rank); });
    at += count;
  }
  Placement placement(shape, std::move(replicas));
  std::vector<float> scores(at, values.end());
  return scores.empty() ? placement : placement.with_pivot_scores(nodes, std::move(scores));
}

}  // namespace

struct Replanner::Planning {
  enum class Outcome : std::uint8_t { planned, not_needed, failed };

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
  Outcome plan(const std::optional<PlacementCosts>& promised) {
    if (trace.tokens == 0) {
      throw Error("the window has no token in its sample");
    }
    if (promised) {
      const PlacementCosts now = evaluate_placement(trace, cluster, running, options);
      if (now.of(options.flow) <= kWorse * promised->of(options.flow) &&
          now.rank_imbalance <= kWorse * promised->rank_imbalance) {
        return Outcome::not_needed;
      }
    }
    replan.emplace(replan_placement(trace, cluster, options));
    return Outcome::planned;
  }
  bool moves() const { return outcome == Outcome::planned && replan->moves; }

  RoutingTrace trace;
  Cluster cluster;
  Placement running;
  PlanOptions options;
  Outcome outcome = Outcome::failed;
  std::string failure;
  std::optional<Replan> replan;
  std::atomic<bool> done = false;  ///< until then all of this is the thread's
  std::thread thread;
};

Replanner::Replanner(const ReplanConfig& config, const TrainConfig& train, ModelRank& rank,
                     Cluster cluster)
    : when_(config.when),
      every_(config.every),
      horizon_steps_(config.horizon_steps),
      tokens_per_step_(static_cast<double>(train.batch_sequences * train.sequence_length)),
      rank_(rank),
      cluster_(std::move(cluster)),
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
  if (enabled() && !planning_ && !way_) {
    sample_.route(chunk, rank_.context().training.first_token);
  }
}

bool Replanner::ready() const { return thread_ && thread_->done; }

ReplanNews Replanner::after_step(std::int64_t step, bool ready) {
  if (!enabled()) {
    return {};
  }
  if (planning_) {
    return ready ? hear(step) : ReplanNews{};
  }
  if (way_) {
    return move(step);
  }
  ++steps_;
  if (const bool asked = std::exchange(requested_, false); asked || steps_ >= every_) {
    begin_planning(asked);
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
                            .slots = most_slots(rank_.placement()),
                            .tokens_per_step = tokens_per_step_,
                            .horizon_steps = static_cast<double>(horizon_steps_)};
  thread_ = std::make_unique<Planning>(std::move(trace), cluster_, rank_.placement(), options);
  std::optional<PlacementCosts> promised;
  if (when_ == "auto" && !asked && promised_) {
    promised = *promised_;
  }
  thread_->thread = std::thread([planning = thread_.get(), promised] { planning->run(promised); });
}

ReplanNews Replanner::hear(std::int64_t step) {
  planning_ = false;
  const std::unique_ptr<Planning> planning = std::exchange(thread_, nullptr);
  std::string told;
  if (planning) {
    planning->thread.join();
    told = planning->moves() ? "adopted" : planning->failure.empty() ? "rejected" : "failed";
    told += planning->moves() ? to_bytes(planning->replan->placement) : "";
  }
  broadcast(rank_.transport(), 0, told, {"plan"});
  constexpr std::string_view kAdopted = "adopted";
  ReplanNews news;
  if (told.starts_with(kAdopted)) {
    ++version_;
    ++adopted_;
    way_.emplace(rank_.placement(),
                 from_bytes(told.substr(kAdopted.size()), rank_.placement().shape(),
                            cluster_.topology.nodes()),
                 limits_);
    const std::size_t portions = planning ? count_portions(*way_) : 0;
    news = move(step);
    if (planning) {
      news.message = describe_adopted(step, *planning->replan, planning->options.flow, portions);
    }
  } else {
    ++(told == "failed" ? failed_ : rejected_);
    news.record = {{"step", step}, {"plan_version", version_}};
    if (planning) {
      news.message =
          planning->failure.empty()
              ? fmt::format("step {}: no plan that pays back within {} steps", step, horizon_steps_)
              : fmt::format("step {}: planning failed: {}", step, planning->failure);
    }
  }
  if (planning && planning->replan) {
    const Replan& replan = *planning->replan;
    promised_ = std::make_unique<PlacementCosts>(replan.after);
    news.record["plan_copies_before"] = replan.before.of(planning->options.flow);
    news.record["plan_copies_after"] = replan.after.of(planning->options.flow);
  }
  news.record["plans_adopted"] = adopted_;
  news.record["plans_rejected"] = rejected_;
  news.record["plans_failed"] = failed_;
  return news;
}

ReplanNews Replanner::move(std::int64_t step) {
  const std::optional<MigrationPortion> portion = way_->next();
  check(portion.has_value(), "a way that is not done has a portion");
  rank_.adopt(portion->placement);
  migrated_bytes_ += portion->bytes;
  if (way_->done()) {
    way_.reset();
  }
  return {.message = {},
          .record = {{"step", step},
                     {"plan_version", version_},
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
