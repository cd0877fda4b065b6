#pragma once
// The split transport: what stays within a node travels by one transport, what goes between nodes
// by another, such as MPI's shared memory and UCX's network.

#include <memory>

#include "comm/transport.h"

namespace cartesian {

/// Of the same rank of the same job, both; they must outlive the result, which finishes, aborts and
/// configures both. Until set_topology(), which every rank calls at the same point of its groups,
/// all travels by `inter`. A group waits for `inter` first, then for `intra`, each with the
/// deadline.
std::unique_ptr<Transport> make_split_transport(Transport& intra, Transport& inter);

}  // namespace cartesian
