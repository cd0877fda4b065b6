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

std::string describe(const JobState& state, int rank) {
  const RankStatus& status = state.rank(rank);
  std::string why = status.cause;
  if (status.registrations == 0) {
    why = "it never came to the coordinator";
  } else if (status.goodbye) {
    why = fmt::format("exit code {}: {}", status.goodbye->exit_code, status.goodbye->reason);
  }
  return fmt::format("rank {} ({}) is {}{}{}", rank,
                     state.shape().hosts[static_cast<std::size_t>(rank)],
                     name_of(state.health(rank)), why.empty() ? "" : ": ", why);
}

}  // namespace

JobMonitor::JobMonitor(const MonitorOptions& options, Coordinator& coordinator, const Clock& clock)
    : coordinator_(coordinator),
      stall_(options.stall),
      metrics_(shape_of(coordinator), options.metrics, clock) {
  coordinator_.observe([this](int rank, const StepReport& report) {
    const std::lock_guard lock(mutex_);
    metrics_.set_placement(this->placement());
    metrics_.add(rank, report);
  });
}

JobMonitor::~JobMonitor() { coordinator_.observe(nullptr); }

void JobMonitor::set_placement(Placement placement, std::int64_t version) {
  auto shared = std::make_shared<const Placement>(std::move(placement));
  const std::lock_guard lock(placement_mutex_);
  placement_ = std::move(shared);
  plan_version_ = version;
}

std::shared_ptr<const Placement> JobMonitor::placement() const {
  const std::lock_guard lock(placement_mutex_);
  return placement_;
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
    counts.stragglers = state.stragglers().named();
  });
  JobFigures figures = [&] {
    const std::lock_guard lock(mutex_);
    return metrics_.figures();
  }();
  figures.placement = placement();
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families(figures, counts));
  return text.str();
}

std::vector<std::string> JobMonitor::troubles() const {
  std::vector<std::string> sentences;
  bool over = false;
  coordinator_.inspect([&](const JobState& state) {
    over = state.over();
    for (const auto& ranks :
         {state.in_health(RankHealth::dead), state.in_health(RankHealth::lost), state.overdue()}) {
      for (const int rank : ranks) {
        sentences.push_back(describe(state, rank));
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
    const std::lock_guard lock(placement_mutex_);
    placement = placement_;
    version = plan_version_;
  }
  if (placement == nullptr) {
    return std::nullopt;
  }
  return placement->to_json(fmt::format("{{\"plan_version\": {}}}", version));
}

}  // namespace cartesian
