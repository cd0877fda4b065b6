#include "runtime/train/chunk_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/index.h"
#include "comm/collectives.h"

namespace cartesian {

namespace {

constexpr std::array kTried = {1, 2, 3, 4, 6, 8};
constexpr std::int64_t kRounds = 3;  // of all that are tried; in the first, memory is still taken

}  // namespace

ChunkChoice::ChunkChoice(std::int64_t configured, int ranks)
    : chunks_(configured > 0 ? static_cast<int>(configured) : 1) {
  if (configured == 0 && ranks > 1) {
    for (const int chunks : kTried) {
      trials_.push_back({.chunks = chunks});
    }
  }
}

std::string ChunkChoice::took(const Context& context, Transport& transport, Seconds step) {
  if (trials_.empty()) {
    return {};
  }
  double seconds = step.count() / transport.size();
  all_reduce_sum(context, transport, Team::world(transport), std::span(&seconds, 1),
                 {"choice of chunks"});
  const auto count = static_cast<std::int64_t>(trials_.size());
  Trial& trial = trials_[as_index(steps_ % count)];
  if (steps_ >= count) {
    trial.least_s = trial.least_s > 0 ? std::min(trial.least_s, seconds) : seconds;
  }
  ++steps_;
  if (steps_ < kRounds * count) {
    chunks_ = trials_[as_index(steps_ % count)].chunks;
    return {};
  }
  chunks_ = std::ranges::min_element(trials_, {}, &Trial::least_s)->chunks;
  std::string times;
  for (const Trial& tried : trials_) {
    times += fmt::format("{}{}: {:.1f} ms", times.empty() ? "" : ", ", tried.chunks,
                         1e3 * tried.least_s);
  }
  trials_.clear();
  return fmt::format("exchange.chunks = {} from here on, the fastest of {} a step", chunks_, times);
}

}  // namespace cartesian
