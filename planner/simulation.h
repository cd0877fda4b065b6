#pragma once
// simulate_step(): the time of a training step's MoE layers, forward and backward, by simulating
// what every rank computes and every link and network card sends, event by event. Unlike
// predict_step() it knows what overlaps and who waits for whom.
//
// The model. A message of n bytes occupies the sender's way out (its link inside the node, or its
// node's card) for n / bandwidth, begins to arrive at the receiver's way in a latency later, and
// occupies that as long; between the two any number of messages may be under way. What asks first
// is served first. A rank goes through each chunk's stages in order (planner/layer_schedule.h) and
// begins one when all that it needs has arrived; its chunks share its arithmetic and links, and
// else do not wait for each other. It begins a layer when it has the last one's outputs of all its
// tokens, with no barrier over ranks. Backward computes twice as much. Then experts with replicas
// add up their gradients (planner/gradient_rings.h), each when all its ranks are done. Routers of
// A, norms and sums cost every placement the same and are left out.

#include <array>
#include <vector>

#include "planner/cluster.h"
#include "planner/resources.h"
#include "planner/timeline.h"
#include "planner/token_router.h"

namespace cartesian {

struct SimulationOptions {
  Flow flow = Flow::pivot;
  PivotRule rule = PivotRule::speculative;
  int chunks = 1;              ///< of each rank's tokens
  double tokens_per_step = 0;  ///< that the trace's stand for; 0: what the trace says, or its own
  double shared_width = 0;     ///< of shared experts, at pivots and finishers
  double attention_flops = 0;  ///< of a token, before each layer, at home; forward
  std::vector<int> timeline_nodes = {};  ///< whose spans are kept
  int threads = 1;                       ///< the result is the same
};

/// What options.tokens_per_step stands for.
double tokens_of_step(const RoutingTrace& trace, const SimulationOptions& options);

struct StepSimulation {
  struct Phase {
    BusyTime compute;  ///< over ranks
    BusyTime intra;    ///< over ranks' links
    BusyTime inter;    ///< over nodes' cards
    double intra_bytes = 0;
    double inter_bytes = 0;
  };
  double seconds = 0;
  std::array<Phase, kStepPhases> phases;  ///< forward and backward
  Phase all;
  std::vector<TimelineSpan> spans;  ///< of options.timeline_nodes

  /// That even the busiest rank waited for messages.
  double exposed_s() const { return seconds - all.compute.most_s; }
  double compute_utilisation() const { return seconds > 0 ? all.compute.mean_s / seconds : 0; }
  double card_utilisation() const { return seconds > 0 ? all.inter.mean_s / seconds : 0; }
};

/// Tokens live where the trace says, or else evenly spread over all ranks. The same on any machine.
/// Throws ConfigError on chunks beyond [1, kMostChunks], or if the pivot rule needs what the trace
/// lacks, or a home is not a rank. REQUIRES: `placement` is of this trace and cluster.
StepSimulation simulate_step(const RoutingTrace& trace, const Cluster& cluster,
                             const Placement& placement, const SimulationOptions& options);

}  // namespace cartesian
