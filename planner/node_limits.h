#pragma once
// NodeLimits: what a node may hold and serve. A's experts work while B's wait, and the other way
// round: so there are limits on the choices of both together and on those of each group.

#include <array>
#include <vector>

#include "base/index.h"

namespace cartesian {

/// Tokens' choices of A's and of B's experts.
struct Loads {
  std::array<double, 2> of_group{};
  double both() const { return of_group[0] + of_group[1]; }
  Loads& add(int group, double load) {
    of_group[as_index(group)] += load;
    return *this;
  }
  Loads& operator+=(const Loads& other) {
    of_group[0] += other.of_group[0];
    of_group[1] += other.of_group[1];
    return *this;
  }
  friend Loads operator+(Loads a, const Loads& b) { return a += b; }
  friend Loads operator-(const Loads& a, const Loads& b) {
    return {{a.of_group[0] - b.of_group[0], a.of_group[1] - b.of_group[1]}};
  }
};

/// [nodes] each.
struct NodeLimits {
  std::vector<int> slots;
  std::vector<double> shares = {};                     ///< of all load, where balancing begins;
                                                       ///< empty: as of slots
  std::vector<double> load;                            ///< in choices of tokens
  std::array<std::vector<double>, 2> group_load = {};  ///< of A and of B alone; empty: any

  /// Whether a node that serves `now` may come to serve `more`: where it is over a limit it may
  /// not rise further.
  bool allow(int node, const Loads& now, const Loads& more) const {
    const auto within = [&](double load_now, double load_more, const std::vector<double>& limit) {
      return limit.empty() || load_more <= 0 || load_now + load_more <= limit[as_index(node)];
    };
    return within(now.both(), more.both(), load) &&
           within(now.of_group[0], more.of_group[0], group_load[0]) &&
           within(now.of_group[1], more.of_group[1], group_load[1]);
  }
  /// By how much a node is over its limits, all of them together.
  double overload(int node, const Loads& loads) const {
    const auto over = [&](double of, const std::vector<double>& limit) {
      return limit.empty() || of <= limit[as_index(node)] ? 0 : of - limit[as_index(node)];
    };
    return over(loads.both(), load) + over(loads.of_group[0], group_load[0]) +
           over(loads.of_group[1], group_load[1]);
  }
};

}  // namespace cartesian
