#pragma once
// How a rank reaches the coordinator beside rank 0.

#include <string>

#include "scheduler/host_lookup.h"

namespace cartesian {

/// 0.0.0.0 or ::, which stand for all addresses of a host.
bool is_every_address(const std::string& address);

/// Numeric, where a rank on `host` connects to what listens at `scheduler.address` = `address` of
/// `root`, rank 0's host. If that is every address, `resolver` looks `root` up, and may wait.
/// Throws ConfigError if `host` is another and cannot reach rank 0 there.
std::string coordinator_address(const std::string& address, const std::string& root,
                                const std::string& host, const Resolver& resolver = resolve_host);

}  // namespace cartesian
