#pragma once
// plan_placement(): experts of every layer to ranks so that the trace's tokens travel little, with
// no node much more loaded than the mean. The same for a seed on any number of threads.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/itinerary.h"
#include "base/placement.h"
#include "base/routing_trace.h"
#include "planner/cluster.h"
#include "planner/layer_trace.h"

namespace cartesian {

inline constexpr double kMostTokensPerStep = 0x1p53;

/// What a plan of a layer is to make little: copies, unless what has fewest takes a predicted step
/// (step_time.h) longer than the linear, the balanced or the running placement; the predicted step;
/// or copies alone.
enum class Objective : std::uint8_t { copies_in_time, step_time, copies };

/// `auto`, `step` or `copies`. Throws ConfigError on others.
Objective objective_named(std::string_view name);

struct PlanOptions {
  Objective objective = Objective::copies_in_time;
  Flow flow = Flow::pivot;  ///< what is planned for; `flat` as `home`
  double load_cap = 1.10;   ///< most choices on a node, over the mean of its share
  /// Of the cap: kept free for text that is not the trace's, at most a third of what it allows
  /// above the mean.
  double load_margin = 0.03;
  int slots = 0;          ///< experts on a rank, of both groups; 0: as few as hold each once
  double redundancy = 0;  ///< of slots == 0: so many more, as a share of the experts, for replicas
  double tokens_per_step = 0;  ///< of training, which replicas must pay in; 0: the trace's; at most
                               ///< kMostTokensPerStep
  std::uint64_t seed = 1;
  double time_budget_s = 2;  ///< of one thread; counted in work, and so the same on any machine
  int threads = 1;

  /// Where experts are while training runs, and the steps within which moving them must pay back;
  /// or nullptr. Labels stay as they are, and of two plans as good the one that moves less is
  /// taken.
  const Placement* running = nullptr;
  double horizon_steps = 1000;  ///< above 0
};

/// Slots of a rank that options ask for; no more than a layer has experts, since no rank can use
/// more. Throws ConfigError on options that cannot be, or, saying how many would do, if the slots
/// do not hold every expert of a layer once.
int slots_per_rank(const PlacementShape& shape, const PlanOptions& options);

/// What the time budget allows a layer, in units of Partition::work().
std::int64_t work_of_layer(const PlanOptions& options, std::size_t layers);

/// Bytes of an expert with its gradient and two moments, float32.
double expert_bytes(const RoutingTrace& trace);
/// Bytes of it that move with it: all but the gradient.
double moving_bytes(const RoutingTrace& trace);
/// Of training, that replicas and moves must pay in: the option's, or else the trace's.
double tokens_per_step(const RoutingTrace& trace, const PlanOptions& options);

/// Every expert once, and on up to 64 nodes in slots that are left over the replicas that save most
/// copies: each at least the bytes of its gradients' sum, 12 d D in bfloat16 against 4 d a copy and
/// direction. Throws ConfigError, saying how much is missing, if a rank's memory does not hold its
/// slots, if redundancy is asked for on more nodes, or if options.running has another shape. With
/// the pivot flow the placement has pivot scores. Where slots cannot keep a layer's load within the
/// cap, it is at most 0.05 of the mean above that of balanced_placement(). Unless copies alone
/// count, no layer's step takes longer than with the linear, the balanced and the running
/// placement, as far as they are within the cap and the slots: in the whole trace, or as much of
/// it as the budget allows.
Placement plan_placement(const RoutingTrace& trace, const Cluster& cluster,
                         const PlanOptions& options);

/// Evens out load only, by EPLB's method: replicas in all slots that are left, too.
Placement balanced_placement(const RoutingTrace& trace, const Cluster& cluster,
                             const PlanOptions& options);

/// P(a node hosts one of B's choices | expert of A is chosen), over the choices of A, so that the
/// scores of a token's experts add up to a probability: [layers][experts][nodes].
std::vector<float> pivot_scores(const RoutingTrace& trace, const Placement& placement,
                                const Topology& topology);
/// Of one layer; `index` is its number among the placement's.
std::vector<float> pivot_scores(const LayerTrace& layer, int index, const Placement& placement,
                                const Topology& topology);

}  // namespace cartesian
