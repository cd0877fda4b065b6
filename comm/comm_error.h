#pragma once
// The sentences of CommErrors, the same for every transport.

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "base/clock.h"
#include "comm/transport.h"

namespace cartesian {

/// The rank that waits, and its host.
struct CommSite {
  int rank = 0;
  std::string host;
};

/// A rank that said it cannot go on.
struct RankFailure {
  int rank = 0;
  std::string cause;
};

/// "dispatch of layer 3", or "barrier" where no layer applies.
std::string describe(const CommPhase& phase);

/// "rank 0 (hostA): no answer from ranks 1, 2 within 120 s in dispatch of layer 3". `peers` may
/// repeat and come in any order.
std::string deadline_message(const CommSite& site, std::span<const int> peers, Seconds timeout,
                             const CommPhase& phase);
/// "rank 0 (hostA): rank 2 failed in combine of layer 3: <cause>".
std::string failure_message(const CommSite& site, const RankFailure& failure,
                            const CommPhase& phase);
/// For the receiver of a message that has another size than the receive.
std::string size_message(const CommSite& site, int peer, std::optional<std::size_t> sent,
                         std::size_t expected, const CommPhase& phase);

/// This machine's name, as gethostname() gives it.
std::string local_host_name();

}  // namespace cartesian
