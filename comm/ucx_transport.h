#pragma once
// The ucx transport: tagged messages of UCP between endpoints of its own. UCX picks the links
// (InfiniBand, RoCE, TCP, shared memory; UCX_TLS and UCX_NET_DEVICES narrow them) and moves large
// messages by rendezvous. A thread that waits drives the worker itself and soon sleeps on its event
// descriptor; else a helper thread does, so that bytes move while the caller computes.

#include <memory>
#include <string>

#include "comm/bootstrap.h"
#include "comm/transport.h"

namespace cartesian {

/// Whether this build has UCX.
bool ucx_available();
/// "UCX 1.13.1"; "none" where the build has no UCX.
std::string ucx_library();

/// Collective over `bootstrap`, which is used during this call only, with options.timeout. Throws
/// ConfigError where the build has no UCX; CommError, on every rank, where UCX cannot start on one.
///
/// A peer whose connection breaks counts as a rank that failed: every wait ends with that.
/// Destruction without finish() is a failure, too, and is told to the others. A wait that throws
/// takes back the receives that have not begun; what is half sent or half received may still be
/// read or written until the transport is destroyed.
std::unique_ptr<Transport> make_ucx_transport(Bootstrap& bootstrap,
                                              const TransportOptions& options = {});

}  // namespace cartesian
