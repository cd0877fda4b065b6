#pragma once
// The sentences of CommErrors, the same for every transport.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "comm/transport.h"

namespace cartesian {

/// The rank that waits, and what it knows of the job.
struct CommSite {
  int rank = 0;
  std::string host;
  std::vector<std::string> hosts;  ///< of every rank; empty while they are not known
  std::int64_t step = -1;          ///< of training, -1 where there is none
};

/// A rank that said it cannot go on.
struct RankFailure {
  int rank = 0;
  std::string cause;
};

/// "dispatch of layer 3", or "barrier" where no layer applies; then " at step 12" if there is one.
std::string describe(const CommPhase& phase, const CommSite& site);

/// "rank 0 (hostA): no answer from ranks 1 (hostB), 2 (hostB) within 120 s in dispatch of layer 3".
/// `peers` may repeat and come in any order.
std::string deadline_message(const CommSite& site, std::span<const int> peers, Seconds timeout,
                             const CommPhase& phase);
/// "rank 0 (hostA): rank 2 (hostB) failed in combine of layer 3: <cause>", and whom else of `peers`
/// this rank was waiting for: one of those may be who has not been heard of.
std::string failure_message(const CommSite& site, const RankFailure& failure,
                            std::span<const int> peers, const CommPhase& phase);
/// For the receiver of a message that has another size than the receive.
std::string size_message(const CommSite& site, int peer, std::optional<std::size_t> sent,
                         std::size_t expected, const CommPhase& phase);

/// This machine's name, as gethostname() gives it.
std::string local_host_name();

}  // namespace cartesian
