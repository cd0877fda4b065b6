#pragma once
// Resources: what in a cluster does one thing at a time, first come, first served: every rank's
// arithmetic, its link inside the node and every node's network card, both of these with a
// direction out and one in that know nothing of each other.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "base/topology.h"

namespace cartesian {

/// The first three are a rank's, the cards a node's.
enum class ResourceKind : std::uint8_t { compute, link_out, link_in, card_out, card_in };
inline constexpr int kResourceKinds = 5;
constexpr bool is_card(ResourceKind kind) { return kind >= ResourceKind::card_out; }

/// What a step's time is spent on.
enum class StepPhase : std::uint8_t {
  attention,
  a_dispatch,
  a_experts,
  a_combine,
  b_router,
  b_dispatch,
  b_experts,
  b_combine,
  gradients
};
inline constexpr int kStepPhases = 9;
std::string_view name_of(StepPhase phase);

/// Seconds that ranks, or cards, were busy, in whichever direction is busier where there are two.
struct BusyTime {
  double mean_s = 0;  ///< over ranks or nodes, and directions
  double most_s = 0;
  int most = 0;  ///< the rank or node, the lowest if there are several
};

/// Not thread-safe.
class Resources {
 public:
  explicit Resources(const Topology& topology);

  /// Occupies rank or node `unit`'s resource for so long, from `now_s` or, if it is later, the end
  /// of what it was asked for before; returns when that begins. REQUIRES: calls come in the order
  /// of `now_s`.
  double occupy(ResourceKind kind, int unit, StepPhase phase, double now_s, double seconds);

  BusyTime busy(StepPhase phase, std::initializer_list<ResourceKind> kinds) const;
  /// In all phases.
  BusyTime busy(std::initializer_list<ResourceKind> kinds) const;

 private:
  struct Units {
    std::vector<double> free_s;
    std::array<std::vector<double>, kStepPhases> busy_s;
  };
  BusyTime busy(std::size_t first_phase, std::size_t phases,
                std::initializer_list<ResourceKind> kinds) const;

  std::array<Units, kResourceKinds> units_;
};

}  // namespace cartesian
