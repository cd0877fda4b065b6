#pragma once
// Gradient synchronisation: after it, replicas of a parameter hold the same gradient, summed over
// all tokens, bit for bit.

#include <list>
#include <memory>
#include <set>
#include <vector>

#include "base/topology.h"
#include "comm/begun_sum.h"
#include "comm/buffer_pool.h"
#include "runtime/model/parameters.h"

namespace cartesian {

/// Sums the dense part's gradients over all ranks, and every replicated expert's over its replicas,
/// part by part while backward goes on. In a sharded store a rank gets the sums of its share of the
/// dense part only; the rest of that is garbage. Collective, every call. Not thread-safe.
class GradientSync {
 public:
  /// All must outlive it.
  GradientSync(Transport& transport, const Topology& topology, ParameterStore& parameters)
      : transport_(transport), topology_(topology), parameters_(parameters) {}

  /// No more is added to the gradients of these dense elements and of the experts of this MoE
  /// layer, -1 for none: their sums begin. They must stay untouched until finish().
  void begin(const Context& context, const ElementRange& dense, int layer);
  /// Ends what was begun, and sums the rest.
  void finish(const Context& context);

 private:
  /// Experts that have the same replicas travel together: copied into one buffer, summed, copied
  /// back.
  struct Replicas {
    std::vector<const ExpertRange*> experts;
    BufferPool::Lease buffer;
    std::unique_ptr<BegunSum> sum;
  };
  /// What was begun at once.
  struct Part {
    std::unique_ptr<BegunSum> dense;
    std::vector<Replicas> replicas;
  };

  void begin_dense(const ElementRange& dense, Part& part);
  void begin_replicas(int layer, Part& part);
  /// Every part by one stage of its sums; those that are done end.
  void advance(const Context& context);
  void end(Part& part);

  Transport& transport_;
  const Topology& topology_;
  ParameterStore& parameters_;
  BufferPool buffers_;
  std::list<Part> parts_;            ///< on their way, the oldest first
  std::vector<ElementRange> begun_;  ///< of the dense part
  std::set<int> begun_layers_;
};

/// After an update of a sharded store: every rank gets every share of the dense weights. Nothing to
/// do in another. Collective.
void gather_weights(Transport& transport, ParameterStore& parameters);

/// The norm of the whole model's gradient, each parameter counted once however many ranks hold it.
/// After GradientSync. Collective; the same bits on every rank, sharded or not.
double global_gradient_norm(const Context& context, Transport& transport,
                            ParameterStore& parameters);

}  // namespace cartesian
