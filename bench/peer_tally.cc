#include "bench/peer_tally.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace cartesian::bench {

namespace {

constexpr double kRounding = 1e-9;
constexpr double kLoadRounding = 1e-6;

double ratio(double ours, double peer) { return std::max(ours, kRounding) / peer; }

/// Without a sign where it would round to nothing.
double percent_more(double ours, double peer) {
  const double percent = -percent_fewer(ours, peer);
  return std::abs(percent) < 0.005 ? 0 : percent;
}

void add_loads(const Measured& measured, Measured& sums) {
  sums.load += measured.load;
  sums.phase_load += measured.phase_load;
  sums.held_out_load += measured.held_out_load;
}

}  // namespace

double percent_fewer(double ours, double peer) { return peer > 0 ? 100 * (1 - ours / peer) : 0; }

void Tally::add(const std::string& name, const Duel& duel) {
  if (duel.peer.copies <= 0 || duel.peer.planned_on <= 0) {
    return;
  }
  ++count_;
  const double more = ratio(duel.ours.copies, duel.peer.copies);
  const double where_planned = ratio(duel.ours.planned_on, duel.peer.planned_on);
  log_sum_ += std::log(more);
  log_sum_where_planned_ += std::log(where_planned);
  add_loads(duel.ours, ours_);
  add_loads(duel.peer, theirs_);
  if (more > worst_) {
    worst_ = more;
    worst_name_ = name;
  }
  const std::string figures = fmt::format(
      "{}: {:.4f} copies against {:.4f} ({:+.2f}%; {:+.2f}% where planned), load {:.4f} against "
      "{:.4f}\n",
      name, duel.ours.copies, duel.peer.copies, percent_more(duel.ours.copies, duel.peer.copies),
      percent_more(duel.ours.planned_on, duel.peer.planned_on), duel.ours.load, duel.peer.load);
  more_where_planned_ += where_planned > 1 + kRounding ? 1 : 0;
  if (more > 1 + kRounding) {
    ++more_;
    notes_ += "  more copies    " + figures;
  } else if (more >= 1 - kRounding) {
    ++equal_;
    notes_ += "  as many copies " + figures;
  }
  if (duel.ours.load > duel.peer.load * (1 + kLoadRounding)) {
    ++heavier_;
    notes_ += "  above the cap  " + figures;
  }
}

double Tally::fewer() const { return count_ > 0 ? 1 - std::exp(log_sum_ / count_) : 0; }

void Tally::print() const {
  if (count_ == 0) {
    return;
  }
  fmt::print(
      "against {}: {:.2f}% fewer copies in geometric mean of {} cases, at worst {:.2f}% ({}); on "
      "the traces that were planned on {:.2f}%\n"
      "  {} with more copies ({} where planned), {} with as many, {} above the cap\n"
      "  mean loads, ours against theirs: {:.3f} {:.3f}, held out {:.3f} {:.3f}, of A or B alone "
      "{:.3f} {:.3f}\n{}",
      peer_, 100 * fewer(), count_, -percent_more(worst_, 1), worst_name_,
      100 * (1 - std::exp(log_sum_where_planned_ / count_)), more_, more_where_planned_, equal_,
      heavier_, ours_.load / count_, theirs_.load / count_, ours_.held_out_load / count_,
      theirs_.held_out_load / count_, ours_.phase_load / count_, theirs_.phase_load / count_,
      notes_);
}

}  // namespace cartesian::bench
