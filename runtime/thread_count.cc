#include "runtime/thread_count.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/collectives.h"

namespace cartesian {

namespace {

constexpr std::int64_t kMostThreads = 1024;

/// The number for the outermost level: "4", or the 4 of "4,2".
std::optional<int> openmp_threads() {
  const char* const text = std::getenv("OMP_NUM_THREADS");  // NOLINT(concurrency-mt-unsafe)
  const std::int64_t count = text != nullptr ? std::strtol(text, nullptr, 10) : 0;
  return count > 0 ? std::optional(static_cast<int>(std::min(count, kMostThreads))) : std::nullopt;
}

/// '1' for every processor that this process may run on; empty where that is not known.
std::string allowed_processors() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  std::string mask;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    for (std::size_t i = 0; i < CPU_SETSIZE; ++i) {
      mask += CPU_ISSET(i, &allowed) ? '1' : '0';
    }
  }
  return mask;
}

int count_processors(const std::string& mask) {
  const auto count = std::ranges::count(mask, '1');
  return std::max(1, count > 0 ? static_cast<int>(count)
                               : static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

int threads_of_process() {
  return openmp_threads().value_or(count_processors(allowed_processors()));
}

int threads_per_rank(Transport& transport, std::int64_t configured) {
  const std::string mask = allowed_processors();
  const std::string mine = transport.host() + ' ' + mask;
  const auto sharing =
      static_cast<int>(std::ranges::count(all_gather(transport, mine, {"bootstrap"}), mine));
  if (configured > 0) {
    return static_cast<int>(std::min(configured, kMostThreads));
  }
  return openmp_threads().value_or(std::max(1, count_processors(mask) / sharing));
}

}  // namespace cartesian
