#include "scheduler/job_monitor.h"

#include <fmt/format.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <sstream>
#include <utility>

namespace cartesian {

namespace {

JobShape shape_of(const Coordinator& coordinator) {
  JobShape shape;
  coordinator.inspect([&](const JobState& state) { shape = state.shape(); });
  return shape;
}

std::string describe(const JobState& state, int rank, RankHealth health) {
  const RankStatus& status = state.rank(rank);
  return fmt::format("rank {} ({}) is {}{}{}", rank, status.host, name_of(health),
                     status.cause.empty() ? "" : ": ", status.cause);
}

}  // namespace

JobMonitor::JobMonitor(const MonitorOptions& options, Coordinator& coordinator, const Clock& clock)
    : coordinator_(coordinator),
      stall_(options.stall),
      metrics_(shape_of(coordinator), options.metrics, clock) {
  coordinator_.observe([this](int rank, const StepReport& report) {
    const std::lock_guard lock(mutex_);
    metrics_.add(rank, report);
  });
}

JobMonitor::~JobMonitor() { coordinator_.observe(nullptr); }

void JobMonitor::set_placement(Placement placement, std::int64_t version) {
  auto shared = std::make_shared<const Placement>(std::move(placement));
  const std::lock_guard lock(mutex_);
  metrics_.set_placement(shared);
  placement_ = std::move(shared);
  plan_version_ = version;
}

std::string JobMonitor::metrics_text() const {
  ControlCounts counts;
  counts.troubles = coordinator_.troubles();
  coordinator_.inspect([&](const JobState& state) {
    for (int rank = 0; rank < state.shape().ranks; ++rank) {
      ++counts.ranks.at(static_cast<std::size_t>(state.health(rank)));
    }
    counts.commands = state.commands().added();
    counts.commands_late = state.commands().late();
    counts.stragglers = state.stragglers();
  });
  std::vector<prometheus::MetricFamily> families;
  {
    const std::lock_guard lock(mutex_);
    families = metrics_.families(counts);
  }
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families);
  return text.str();
}

std::vector<std::string> JobMonitor::troubles() const {
  std::vector<std::string> sentences;
  bool over = false;
  coordinator_.inspect([&](const JobState& state) {
    over = static_cast<int>(state.in_health(RankHealth::finished).size()) == state.shape().ranks;
    for (const RankHealth health : {RankHealth::dead, RankHealth::lost}) {
      for (const int rank : state.in_health(health)) {
        sentences.push_back(describe(state, rank, health));
      }
    }
  });
  const std::lock_guard lock(mutex_);
  if (const Seconds age = metrics_.step_age(); age > stall_ && !over) {
    sentences.push_back(fmt::format("no step has ended for {:.0f} s; the last was {}", age.count(),
                                    metrics_.step()));
  }
  return sentences;
}

std::optional<std::string> JobMonitor::placement_json() const {
  std::shared_ptr<const Placement> placement;
  std::int64_t version = 0;
  {
    const std::lock_guard lock(mutex_);
    placement = placement_;
    version = plan_version_;
  }
  if (placement == nullptr) {
    return std::nullopt;
  }
  return placement->to_json(fmt::format("{{\"plan_version\": {}}}", version));
}

}  // namespace cartesian
