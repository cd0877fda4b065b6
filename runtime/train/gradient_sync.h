#pragma once
// Gradient synchronisation: after it, replicas of a parameter hold the same gradient, summed over
// all tokens, bit for bit.

#include <deque>
#include <memory>
#include <set>
#include <vector>

#include "comm/begun_all_reduce.h"
#include "comm/buffer_pool.h"
#include "runtime/model/parameters.h"

namespace cartesian {

/// Sums the dense part's gradients over all ranks, and every replicated expert's over its replicas,
/// part by part while backward goes on. In a sharded store a rank gets the sums of its share of the
/// dense part only, at the end. Collective, every call. Not thread-safe.
class GradientSync {
 public:
  /// All must outlive it.
  GradientSync(Transport& transport, ParameterStore& parameters)
      : transport_(transport), parameters_(parameters) {}

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
    std::unique_ptr<BegunAllReduce> sum;
  };
  /// What was begun at once.
  struct Part {
    std::unique_ptr<BegunAllReduce> dense;
    std::vector<Replicas> replicas;
  };

  void begin_replicas(int layer, Part& part);
  void finish(Part& part);
  void reduce_last(const Context& context);

  Transport& transport_;
  ParameterStore& parameters_;
  BufferPool buffers_;
  std::deque<Part> parts_;  ///< all but perhaps the last have been reduced
  bool last_is_reduced_ = true;
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
