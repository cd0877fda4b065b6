#pragma once
// Ranks as threads of one process: for tests, and for a job of one rank. Messages are copied once,
// sender to receiver.

#include <functional>
#include <memory>
#include <vector>

#include "comm/transport.h"

namespace cartesian {

/// `size` transports that share a mailbox; give one to each thread. One that is destroyed without
/// finish() counts as a failed rank.
std::vector<std::unique_ptr<Transport>> make_local_transports(int size,
                                                              const TransportOptions& options = {});

/// Runs `body(transport)` and then transport.finish() on `size` threads and joins them. If a body
/// throws, its cause is told to the others by abort(); the first exception thrown (not one that
/// abort() caused) is rethrown here.
void run_local_ranks(int size, const std::function<void(Transport&)>& body,
                     const TransportOptions& options = {});

}  // namespace cartesian
