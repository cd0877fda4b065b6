#include "scheduler/job_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"

namespace cartesian {

std::string_view name_of(RankHealth health) {
  constexpr std::array<std::string_view, kRankHealths> kNames = {"absent", "alive", "late",
                                                                 "lost",   "dead",  "finished"};
  return kNames.at(static_cast<std::size_t>(health));
}

std::string list_ranks(const std::vector<int>& ranks, const JobShape& shape) {
  constexpr std::size_t kListed = 8;
  std::string list;
  for (std::size_t i = 0; i < std::min(kListed, ranks.size()); ++i) {
    list += fmt::format("{}{} ({})", i == 0 ? "rank " : ", ", ranks[i],
                        shape.hosts[static_cast<std::size_t>(ranks[i])]);
  }
  return ranks.size() <= kListed ? list
                                 : fmt::format("{} and {} more", list, ranks.size() - kListed);
}

JobState::JobState(JobShape shape, const Clock& clock, const JobLimits& limits,
                   std::uint64_t first_command)
    : shape_(std::move(shape)),
      clock_(clock),
      limits_(limits),
      began_(clock.now()),
      ranks_(static_cast<std::size_t>(shape_.ranks)),
      commands_(shape_.ranks, first_command),
      stragglers_(shape_) {}

Admission JobState::admit(const Hello& hello, std::uint64_t connection) {
  check(connection != 0, "connections are numbered from 1");
  RankStatus& status = ranks_[static_cast<std::size_t>(hello.rank)];
  const bool returns = status.registrations > 0 && status.instance == hello.instance;
  if (status.connection != 0 && !returns) {
    return {fmt::format("rank {} is registered by process {} on {} already", hello.rank, status.pid,
                        status.host)};
  }
  const std::uint64_t replaced = status.connection;
  if (!returns) {
    status.reported = -1;  // a new process may go through steps again
  }
  status.connection = connection;
  status.instance = hello.instance;
  status.pid = hello.pid;
  status.host = hello.host;
  status.goodbye.reset();
  status.cause.clear();
  ++status.registrations;
  status.heard = clock_.now();
  return {"", replaced};
}

void JobState::disconnect(int rank, std::uint64_t connection, std::string_view cause) {
  RankStatus& status = ranks_[static_cast<std::size_t>(rank)];
  if (status.connection == connection) {
    status.connection = 0;
    status.cause = cause;
  }
}

RankStatus& JobState::hear(int rank, std::int64_t step) {
  RankStatus& status = ranks_[static_cast<std::size_t>(rank)];
  status.heard = clock_.now();
  status.step = std::max(status.step, step);
  step_ = std::max(step_, step);
  return status;
}

void JobState::heartbeat(int rank, const Heartbeat& heartbeat) { hear(rank, heartbeat.step); }

std::string JobState::report(int rank, StepReport report) {
  std::string wrong = mismatch(report, shape_);
  if (wrong.empty()) {
    RankStatus& status = hear(rank, report.step);
    if (report.step > status.reported) {
      status.reported = report.step;
      stragglers_.add(rank, report);
      if (observer_) {
        observer_(rank, report);
      }
      status.latest = std::move(report);
    }
  }
  return wrong;
}

void JobState::goodbye(int rank, const Goodbye& goodbye) { hear(rank, -1).goodbye = goodbye; }

RankHealth JobState::health(int rank) const {
  const RankStatus& status = this->rank(rank);
  const Seconds silence = clock_.now() - status.heard;
  if (status.goodbye) {
    return status.goodbye->failed() ? RankHealth::dead : RankHealth::finished;
  }
  if (status.registrations == 0) {
    return RankHealth::absent;
  }
  if (silence > limits_.dead) {
    return RankHealth::dead;
  }
  if (status.connection == 0) {
    return RankHealth::lost;
  }
  return silence > limits_.late ? RankHealth::late : RankHealth::alive;
}

std::vector<int> JobState::in_health(RankHealth wanted) const {
  std::vector<int> found;
  for (int rank = 0; rank < shape_.ranks; ++rank) {
    if (health(rank) == wanted) {
      found.push_back(rank);
    }
  }
  return found;
}

std::vector<int> JobState::overdue() const {
  return clock_.now() - began_ > limits_.absent ? in_health(RankHealth::absent)
                                                : std::vector<int>{};
}

bool JobState::over() const {
  return std::ranges::all_of(ranks_,
                             [](const RankStatus& rank) { return rank.goodbye.has_value(); });
}

const Command& JobState::command(std::string kind, std::string payload, std::int64_t earliest) {
  const std::int64_t at_step =
      std::max(std::max<std::int64_t>(step_, 0) + limits_.margin, earliest);
  return commands_.add(std::move(kind), std::move(payload), at_step, clock_.now());
}

}  // namespace cartesian
