#include "runtime/top/job_view.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "base/check.h"

namespace cartesian {

namespace {

/// What counters grew by between two readings of one job.
class Growth {
 public:
  /// Without `first` since the job began.
  Growth(const JobSnapshot* first, const JobSnapshot& last) : first_(first), last_(last) {}

  double of(double JobSnapshot::*counter) const {
    return grown(first_ != nullptr ? first_->*counter : 0, last_.*counter);
  }

  double of_rank(int rank, double RankReading::*counter) const {
    return grown(&JobSnapshot::by_rank, rank, [&](const RankReading& r) { return r.*counter; });
  }

  double of_scope(const std::string& scope, double TrafficReading::*counter) const {
    return grown(&JobSnapshot::traffic, scope, [&](const TrafficReading& t) { return t.*counter; });
  }

  double of_expert(const LayerGroup& of, int expert) const {
    return grown(&JobSnapshot::experts, of, [&](const ExpertsReading& experts) {
      const auto found = experts.tokens.find(expert);
      return found == experts.tokens.end() ? 0.0 : found->second;
    });
  }

  double of_phase(std::size_t i) const {
    const double before = first_ != nullptr && i < first_->phase_s.size() &&
                                  first_->phase_s[i].first == last_.phase_s[i].first
                              ? first_->phase_s[i].second
                              : 0;
    return grown(before, last_.phase_s[i].second);
  }

 private:
  /// A counter that fell all the same began anew, as Prometheus has it. What is no growth of a
  /// counter, but hostile, is none.
  static double grown(double before, double after) {
    const double growth = after < before ? after : after - before;
    return std::isfinite(growth) && growth > 0 ? growth : 0;
  }

  template <class Key, class Value, class Read>
  double grown(std::map<Key, Value> JobSnapshot::*member, const Key& key, Read read) const {
    const auto now = (last_.*member).find(key);
    if (now == (last_.*member).end()) {
      return 0;
    }
    const double after = read(now->second);
    if (first_ == nullptr) {
      return after;
    }
    const auto then = (first_->*member).find(key);
    const double before = then == (first_->*member).end() ? 0 : read(then->second);
    return grown(before, after);
  }

  const JobSnapshot* first_;
  const JobSnapshot& last_;
};

/// Nothing where there is nothing to divide by.
std::optional<double> ratio(double part, double whole) {
  return whole > 0 ? std::optional(part / whole) : std::nullopt;
}

std::vector<PhaseView> phases(const JobSnapshot& now, const Growth& growth) {
  double all = 0;
  for (std::size_t i = 0; i < now.phase_s.size(); ++i) {
    all += growth.of_phase(i);
  }
  const double steps = growth.of(&JobSnapshot::step_count);
  std::vector<PhaseView> views;
  for (std::size_t i = 0; i < now.phase_s.size(); ++i) {
    const double seconds = growth.of_phase(i);
    if (seconds > 0) {
      views.push_back({now.phase_s[i].first, seconds / all, ratio(seconds, steps).value_or(0)});
    }
  }
  return views;
}

/// intra, inter, and what else there is.
std::vector<TrafficView> traffic(const JobSnapshot& now, const Growth& growth, double window_s) {
  std::vector<TrafficView> views;
  for (const auto& [scope, reading] : now.traffic) {
    views.push_back({scope, ratio(growth.of_scope(scope, &TrafficReading::bytes), window_s),
                     ratio(growth.of_scope(scope, &TrafficReading::rows), window_s)});
  }
  std::ranges::stable_partition(views, [](const TrafficView& v) { return v.scope == "intra"; });
  return views;
}

std::vector<ExpertsView> experts(const JobSnapshot& now, const Growth& growth) {
  const auto of_layer = [](const std::map<int, double>& values, int layer) {
    const auto found = values.find(layer);
    return found == values.end() ? std::nullopt : std::optional(found->second);
  };
  std::vector<ExpertsView> views;
  for (const auto& [key, reading] : now.experts) {
    ExpertsView view{.layer = key.first,
                     .group = key.second,
                     .loads = {},
                     .imbalance = reading.imbalance,
                     .dead = reading.dead,
                     .rank_imbalance = of_layer(now.rank_imbalance, key.first),
                     .colocation = of_layer(now.colocation, key.first)};
    for (const auto& [expert, tokens] : reading.tokens) {
      view.loads.push_back(growth.of_expert(key, expert));
    }
    views.push_back(std::move(view));
  }
  return views;
}

std::vector<RankView> ranks(const JobSnapshot& now, const Growth& growth) {
  std::vector<RankView> views;
  for (const auto& [rank, reading] : now.by_rank) {
    const double computes = growth.of_rank(rank, &RankReading::compute_s);
    const double waits = growth.of_rank(rank, &RankReading::wait_s);
    const double waited_for = growth.of_rank(rank, &RankReading::waited_for_s);
    views.push_back({.rank = rank,
                     .host = reading.host,
                     .straggler_ratio = reading.straggler_ratio,
                     .step_s = reading.step_s,
                     .compute_share = ratio(computes, computes + waits),
                     .wait_share = ratio(waits, computes + waits),
                     .waited_for_share = ratio(waited_for, computes + waits)});
  }
  std::ranges::stable_sort(views, std::ranges::greater{}, [](const RankView& view) {
    return std::tuple(view.straggler_ratio.value_or(0), view.compute_share.value_or(0));
  });
  return views;
}

}  // namespace

void JobHistory::add(JobSnapshot snapshot) {
  if (!readings_.empty() && began_anew(readings_.back(), snapshot)) {
    readings_.clear();
  }
  readings_.push_back(std::move(snapshot));
  const auto enough_without_first = [&] {
    return readings_.size() > kMostReadings || *readings_.back().step - *readings_[1].step >= 2;
  };
  while (readings_.size() > kReadings && enough_without_first()) {
    readings_.pop_front();
  }
}

JobView make_job_view(const JobHistory& history) {
  check(!history.readings().empty(), "a view of no reading");
  const JobSnapshot& first = history.readings().front();
  JobView view;
  view.now = history.readings().back();
  const JobSnapshot& now = view.now;
  view.window_s = (now.at - first.at).count();
  view.moving = view.window_s > 0 && now.reports > first.reports;

  const Growth window(&first, now);
  const Growth steps(view.moving ? &first : nullptr, now);
  if (view.window_s > 0) {
    view.tokens_per_s = window.of(&JobSnapshot::tokens) / view.window_s;
    view.steps_per_s = std::max(0.0, *now.step - *first.step) / view.window_s;
  }
  view.step_s = ratio(steps.of(&JobSnapshot::step_s), steps.of(&JobSnapshot::step_count));
  view.exposed_share = ratio(steps.of(&JobSnapshot::exposed_s), steps.of(&JobSnapshot::step_s));
  view.pivot_hit_rate = ratio(steps.of(&JobSnapshot::pivot_hits), steps.of(&JobSnapshot::pivots));
  view.phases = phases(now, steps);
  view.traffic = traffic(now, window, view.window_s);
  view.experts = experts(now, steps);
  view.ranks = ranks(now, steps);
  return view;
}

}  // namespace cartesian
