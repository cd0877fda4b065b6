#include "scheduler/straggler_watch.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "base/check.h"

namespace cartesian {

namespace {

/// Steps that may wait for reports; a report that was dropped never comes.
constexpr std::size_t kMostOpen = 16;

std::size_t nodes_of(const JobShape& shape) {
  return static_cast<std::size_t>(*std::ranges::max_element(shape.node_of_rank)) + 1;
}

double experts_s(const JobShape& shape, const StepReport& report) {
  const auto phase = std::ranges::find(shape.phases, "experts");
  return phase == shape.phases.end()
             ? 0
             : report.phase_s[static_cast<std::size_t>(phase - shape.phases.begin())];
}

double over(double sum, double count) { return count > 0 ? sum / count : 0; }

using Figure = std::function<double(const StragglerEvidence&)>;

double middle_half(const std::deque<StragglerEvidence>& steps, const Figure& figure) {
  std::vector<double> values(steps.size());
  std::ranges::transform(steps, values.begin(), figure);
  std::ranges::sort(values);
  const auto cut = static_cast<std::ptrdiff_t>(values.size() / 4);
  return std::accumulate(values.begin() + cut, values.end() - cut, 0.0) /
         static_cast<double>(values.end() - values.begin() - 2 * cut);
}

}  // namespace

StepEvidence::StepEvidence(const JobShape& shape)
    : shape_(&shape), missing_(shape.ranks), reported_(static_cast<std::size_t>(shape.ranks)) {
  sums_.compute_s.resize(reported_.size());
  sums_.tokens.resize(reported_.size());
  sums_.nodes.resize(nodes_of(shape));
}

void StepEvidence::add(int rank, const StepReport& report) {
  const auto i = static_cast<std::size_t>(rank);
  if (reported_[i]) {
    return;
  }
  reported_[i] = true;
  --missing_;
  sums_.step_s += report.step_s;
  sums_.compute_s[i] = std::max(0.0, report.step_s - report.wait_s - experts_s(*shape_, report));
  sums_.tokens[i] = static_cast<double>(report.tokens);
  const int node = shape_->node_of_rank[i];
  for (std::size_t peer = 0; peer < report.waits_by_peer.size(); ++peer) {
    const int other = shape_->node_of_rank[peer];
    if (other != node) {
      const double waited = report.waits_by_peer[peer];
      sums_.nodes[static_cast<std::size_t>(node)].of_it += waited;
      sums_.nodes[static_cast<std::size_t>(other)].for_it += waited;
      between_nodes_ += waited;
    }
  }
}

StragglerEvidence StepEvidence::evidence() const {
  check(complete(), "all ranks have reported the step");
  const double ranks = shape_->ranks;
  std::vector<double> sizes(sums_.nodes.size());
  double pairs = ranks * ranks;  // of ranks of different nodes, one way
  for (std::size_t node = 0; node < sizes.size(); ++node) {
    sizes[node] =
        static_cast<double>(std::ranges::count(shape_->node_of_rank, static_cast<int>(node)));
    pairs -= sizes[node] * sizes[node];
  }
  StragglerEvidence step = sums_;
  step.step_s /= ranks;
  for (std::size_t node = 0; node < sizes.size(); ++node) {
    NodeWaits& waits = step.nodes[node];
    const double own = sizes[node] * (ranks - sizes[node]);
    waits.elsewhere =
        over(std::max(0.0, between_nodes_ - waits.of_it - waits.for_it), pairs - 2 * own);
    waits.of_it = over(waits.of_it, own);
    waits.for_it = over(waits.for_it, own);
  }
  return step;
}

StragglerEvidence typical(const std::deque<StragglerEvidence>& steps) {
  StragglerEvidence result = steps.front();
  using Step = StragglerEvidence;
  result.step_s = middle_half(steps, [](const Step& step) { return step.step_s; });
  for (std::size_t rank = 0; rank < result.compute_s.size(); ++rank) {
    result.compute_s[rank] =
        middle_half(steps, [&](const Step& step) { return step.compute_s[rank]; });
    result.tokens[rank] = middle_half(steps, [&](const Step& step) { return step.tokens[rank]; });
  }
  for (std::size_t node = 0; node < result.nodes.size(); ++node) {
    const auto waits = [&](double NodeWaits::*figure) {
      return middle_half(steps, [&](const Step& step) { return step.nodes[node].*figure; });
    };
    result.nodes[node] = {waits(&NodeWaits::of_it), waits(&NodeWaits::for_it),
                          waits(&NodeWaits::elsewhere)};
  }
  return result;
}

StragglerWatch::StragglerWatch(JobShape shape) : shape_(std::move(shape)) {}

void StragglerWatch::add(int rank, const StepReport& report) {
  const auto step = open_.try_emplace(report.step, shape_).first;
  step->second.add(rank, report);
  if (step->second.complete()) {
    complete_.push_back(step->second.evidence());
    open_.erase(step);
    incomplete_ = 0;
    if (complete_.size() > kSteps) {
      complete_.pop_front();
    }
    if (complete_.size() == kSteps) {
      look();
    }
  } else if (open_.size() > kMostOpen) {
    open_.erase(open_.begin());
    ++incomplete_;
    if (incomplete_ == kGone) {
      forget();
    }
  }
}

void StragglerWatch::forget() {
  complete_.clear();
  suspects_.clear();
  named_.clear();
}

void StragglerWatch::look() {
  const std::vector<Straggler> found = find_stragglers(shape_, typical(complete_));
  for (Suspect& suspect : suspects_) {
    ++suspect.gone;
  }
  for (const Straggler& one : found) {
    auto suspect = std::ranges::find_if(suspects_, [&](const Suspect& known) {
      return known.latest.kind == one.kind && known.latest.number == one.number;
    });
    if (suspect == suspects_.end()) {
      suspects_.push_back({});
      suspect = std::prev(suspects_.end());
    }
    suspect->latest = one;
    suspect->found += 1;
    suspect->gone = 0;
    suspect->named = suspect->named || suspect->found >= kFound;
  }
  std::erase_if(suspects_,
                [](const Suspect& suspect) { return suspect.gone >= (suspect.named ? kGone : 1); });
  named_.clear();
  for (const Suspect& suspect : suspects_) {
    if (suspect.named) {
      named_.push_back(suspect.latest);
    }
  }
}

}  // namespace cartesian
