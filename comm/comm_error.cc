#include "comm/comm_error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <array>
#include <set>

namespace cartesian {

std::string describe(const CommPhase& phase) {
  return phase.layer < 0 ? std::string(phase.name)
                         : fmt::format("{} of layer {}", phase.name, phase.layer);
}

std::string deadline_message(const CommSite& site, std::span<const int> peers, Seconds timeout,
                             const CommPhase& phase) {
  const std::set<int> distinct(peers.begin(), peers.end());
  return fmt::format("rank {} ({}): no answer from {} {} within {:g} s in {}", site.rank, site.host,
                     distinct.size() == 1 ? "rank" : "ranks", fmt::join(distinct, ", "),
                     timeout.count(), describe(phase));
}

std::string failure_message(const CommSite& site, const RankFailure& failure,
                            const CommPhase& phase) {
  return fmt::format("rank {} ({}): {} failed in {}: {}", site.rank, site.host,
                     failure.rank == site.rank ? "this rank" : fmt::format("rank {}", failure.rank),
                     describe(phase), failure.cause);
}

std::string size_message(const CommSite& site, int peer, std::optional<std::size_t> sent,
                         std::size_t expected, const CommPhase& phase) {
  return fmt::format("rank {} ({}): rank {} sent {} bytes where {} were expected in {}", site.rank,
                     site.host, peer, sent ? fmt::to_string(*sent) : "more", expected,
                     describe(phase));
}

std::string local_host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) {
    return "unknown host";
  }
  return name.data();
}

}  // namespace cartesian
