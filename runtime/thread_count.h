#pragma once
// How many threads a process computes with, where nobody says.

#include <cstdint>

#include "comm/transport.h"

namespace cartesian {

/// What OMP_NUM_THREADS says, or else the processors that this process may run on.
int threads_of_process();

/// Threads for this rank: `configured`, or if 0 what OMP_NUM_THREADS says, or else its share of the
/// processors that it may run on, with the ranks of its host that may run on the same: all of them,
/// or none other where a launcher has bound ranks. Collective.
int threads_per_rank(Transport& transport, std::int64_t configured);

}  // namespace cartesian
