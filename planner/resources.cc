#include "planner/resources.h"

#include <algorithm>

#include "base/index.h"

namespace cartesian {

std::string_view name_of(StepPhase phase) {
  switch (phase) {
    case StepPhase::attention:
      return "attention";
    case StepPhase::a_dispatch:
      return "A dispatch";
    case StepPhase::a_experts:
      return "A experts";
    case StepPhase::a_combine:
      return "A combine";
    case StepPhase::b_router:
      return "B router";
    case StepPhase::b_dispatch:
      return "B dispatch";
    case StepPhase::b_experts:
      return "B experts";
    case StepPhase::b_combine:
      return "B combine";
    case StepPhase::gradients:
      return "gradients";
  }
  return "?";
}

Resources::Resources(const Topology& topology) {
  for (std::size_t kind = 0; kind < units_.size(); ++kind) {
    const bool card = is_card(static_cast<ResourceKind>(kind));
    const std::size_t count = as_index(card ? topology.nodes() : topology.ranks());
    units_[kind].free_s.resize(count);
    for (std::vector<double>& busy : units_[kind].busy_s) {
      busy.resize(count);
    }
  }
}

double Resources::occupy(ResourceKind kind, int unit, StepPhase phase, double now_s,
                         double seconds) {
  Units& units = units_.at(static_cast<std::size_t>(kind));
  double& free_s = units.free_s[as_index(unit)];
  const double start_s = std::max(now_s, free_s);
  free_s = start_s + seconds;
  units.busy_s.at(static_cast<std::size_t>(phase))[as_index(unit)] += seconds;
  return start_s;
}

BusyTime Resources::busy(StepPhase phase, std::initializer_list<ResourceKind> kinds) const {
  return busy(static_cast<std::size_t>(phase), 1, kinds);
}

BusyTime Resources::busy(std::initializer_list<ResourceKind> kinds) const {
  return busy(0, kStepPhases, kinds);
}

BusyTime Resources::busy(std::size_t first_phase, std::size_t phases,
                         std::initializer_list<ResourceKind> kinds) const {
  BusyTime result;
  double sum = 0;
  std::size_t count = 0;
  for (const ResourceKind kind : kinds) {
    const Units& units = units_.at(static_cast<std::size_t>(kind));
    for (std::size_t unit = 0; unit < units.free_s.size(); ++unit) {
      double busy = 0;
      for (std::size_t phase = first_phase; phase < first_phase + phases; ++phase) {
        busy += units.busy_s.at(phase)[unit];
      }
      sum += busy;
      if (busy > result.most_s) {
        result.most_s = busy;
        result.most = static_cast<int>(unit);
      }
    }
    count += units.free_s.size();
  }
  result.mean_s = count > 0 ? sum / static_cast<double>(count) : 0;
  return result;
}

}  // namespace cartesian
