#include "comm/comm_error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <array>
#include <set>

namespace cartesian {

namespace {

/// "7 (hostB)", or "7" where hosts are not known.
std::string name_of_rank(const CommSite& site, int rank) {
  const auto index = static_cast<std::size_t>(rank);
  return index < site.hosts.size() ? fmt::format("{} ({})", rank, site.hosts[index])
                                   : std::to_string(rank);
}

/// "rank 2", "ranks 1, 2".
std::string list_ranks(const CommSite& site, const std::set<int>& ranks) {
  std::vector<std::string> names;
  for (const int rank : ranks) {
    names.push_back(name_of_rank(site, rank));
  }
  return fmt::format("{} {}", ranks.size() == 1 ? "rank" : "ranks", fmt::join(names, ", "));
}

}  // namespace

std::string describe(const CommPhase& phase, const CommSite& site) {
  std::string text(phase.name);
  if (phase.layer >= 0) {
    text += fmt::format(" of layer {}", phase.layer);
  }
  if (site.step >= 0) {
    text += fmt::format(" at step {}", site.step);
  }
  return text;
}

std::string deadline_message(const CommSite& site, std::span<const int> peers, Seconds timeout,
                             const CommPhase& phase) {
  return fmt::format("rank {} ({}): no answer from {} within {:g} s in {}", site.rank, site.host,
                     list_ranks(site, {peers.begin(), peers.end()}), timeout.count(),
                     describe(phase, site));
}

std::string failure_message(const CommSite& site, const RankFailure& failure,
                            std::span<const int> peers, const CommPhase& phase) {
  std::set<int> others(peers.begin(), peers.end());
  others.erase(failure.rank);
  const std::string also =
      others.empty() ? "" : fmt::format("; this rank was waiting for {}", list_ranks(site, others));
  return fmt::format(
      "rank {} ({}): {} failed in {}: {}{}", site.rank, site.host,
      failure.rank == site.rank ? "this rank" : "rank " + name_of_rank(site, failure.rank),
      describe(phase, site), failure.cause, also);
}

std::string size_message(const CommSite& site, int peer, std::optional<std::size_t> sent,
                         std::size_t expected, const CommPhase& phase) {
  return fmt::format("rank {} ({}): rank {} sent {} bytes where {} were expected in {}", site.rank,
                     site.host, peer, sent ? fmt::to_string(*sent) : "more", expected,
                     describe(phase, site));
}

std::string local_host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) {
    return "unknown host";
  }
  return name.data();
}

}  // namespace cartesian
