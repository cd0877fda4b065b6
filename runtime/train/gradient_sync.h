#pragma once
// Gradient synchronisation: after it, replicas of a parameter hold the same gradient, summed over
// all tokens, bit for bit.

#include "comm/collectives.h"
#include "runtime/model/parameters.h"

namespace cartesian {

/// Sums the dense part's gradients over all ranks, and every replicated expert's over its replicas.
/// In a sharded store a rank gets the sums of its share of the dense part only. Collective.
void sync_gradients(const Context& context, Transport& transport, ParameterStore& parameters);

/// After an update of a sharded store: every rank gets every share of the dense weights. Nothing to
/// do in another. Collective.
void gather_weights(Transport& transport, ParameterStore& parameters);

/// The norm of the whole model's gradient, each parameter counted once however many ranks hold it.
/// After sync_gradients(). Collective; the same bits on every rank, sharded or not.
double global_gradient_norm(const Context& context, Transport& transport,
                            ParameterStore& parameters);

}  // namespace cartesian
