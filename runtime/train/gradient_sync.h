#pragma once
// Gradient synchronisation: after it, replicas of a parameter hold the same gradient, summed over
// all tokens, bit for bit.

#include "comm/collectives.h"
#include "runtime/model/parameters.h"

namespace cartesian {

/// Sums the dense part's gradients over all ranks, and every replicated expert's over its replicas.
/// Collective.
void sync_gradients(const Context& context, Transport& transport, ParameterStore& parameters);

/// The norm of the whole model's gradient, each parameter counted once however many ranks hold it.
/// After sync_gradients(). Collective; the same bits on every rank.
double global_gradient_norm(const Context& context, Transport& transport,
                            ParameterStore& parameters);

}  // namespace cartesian
