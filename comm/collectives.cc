#include "comm/collectives.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <numeric>
#include <thread>

#include "base/check.h"
#include "base/error.h"

namespace cartesian {

namespace {

using Size = std::uint64_t;

std::span<std::byte> bytes_of(Size& size) { return std::as_writable_bytes(std::span(&size, 1)); }
std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}
std::span<std::byte> bytes_of(std::string& text) { return std::as_writable_bytes(std::span(text)); }

/// The kinds of error that agree() carries; the first letter of what ranks exchange.
constexpr char kSuccess = ' ';
constexpr char kConfig = 'C';
constexpr char kFormat = 'F';
constexpr char kFile = 'I';
constexpr char kNumeric = 'N';
constexpr char kOther = 'E';

[[noreturn]] void throw_kind(char kind, const std::string& text) {
  switch (kind) {
    case kConfig:
      throw ConfigError(text, /*on_every_rank=*/true);
    case kFormat:
      throw FormatError(text, /*on_every_rank=*/true);
    case kFile:
      throw FileError(text, /*on_every_rank=*/true);
    case kNumeric:
      throw NumericError(text, /*on_every_rank=*/true);
    default:
      throw Error(text, /*on_every_rank=*/true);
  }
}

/// How long wait_patiently() lets pass between two rounds: short at first, for work that is.
constexpr std::chrono::milliseconds kFirstPause{1};
constexpr std::chrono::milliseconds kLongestPause{256};

/// Runs `work`; a letter for its outcome and the error's text.
std::string outcome_of(const std::function<void()>& work) {
  const auto failed = [](char kind, const char* text) { return std::string(1, kind) + text; };
  try {
    work();
    return std::string(1, kSuccess);
  } catch (const CommError&) {
    throw;
  } catch (const ConfigError& error) {
    return failed(kConfig, error.what());
  } catch (const FormatError& error) {
    return failed(kFormat, error.what());
  } catch (const FileError& error) {
    return failed(kFile, error.what());
  } catch (const NumericError& error) {
    return failed(kNumeric, error.what());
  } catch (const std::exception& error) {
    return failed(kOther, error.what());
  }
}

/// Throws on every rank alike if any rank's outcome is a failure.
void agree_on(Transport& transport, CommPhase phase, const std::string& outcome) {
  const std::vector<std::string> outcomes = all_gather(transport, outcome, phase);
  const auto has_failed = [](const std::string& o) { return o.front() != kSuccess; };
  const auto failed = std::ranges::find_if(outcomes, has_failed);
  if (failed == outcomes.end()) {
    return;
  }
  const bool all_alike =
      std::ranges::all_of(outcomes, [&failed](const std::string& o) { return o == *failed; });
  const std::string text = failed->substr(1);
  throw_kind(failed->front(),
             all_alike ? text : fmt::format("rank {}: {}", failed - outcomes.begin(), text));
}

}  // namespace

Team Team::world(const Transport& transport) {
  Team team;
  team.ranks.resize(static_cast<std::size_t>(transport.size()));
  std::iota(team.ranks.begin(), team.ranks.end(), 0);
  return team;
}

int Team::index_of(int rank) const {
  const auto found = std::lower_bound(ranks.begin(), ranks.end(), rank);
  return found != ranks.end() && *found == rank ? static_cast<int>(found - ranks.begin()) : -1;
}

std::vector<std::string> all_gather(Transport& transport, std::string_view mine, CommPhase phase) {
  const auto ranks = static_cast<std::size_t>(transport.size());
  const auto me = static_cast<std::size_t>(transport.rank());
  std::vector<Size> sizes(ranks);
  sizes[me] = mine.size();
  MessageGroup lengths{phase, {}, {}};
  for (std::size_t r = 0; r < ranks; ++r) {
    if (r != me) {
      lengths.sends.push_back({static_cast<int>(r), bytes_of(sizes[me])});
      lengths.recvs.push_back({static_cast<int>(r), bytes_of(sizes[r])});
    }
  }
  transport.exchange(std::move(lengths));

  std::vector<std::string> gathered(ranks);
  gathered[me] = mine;
  MessageGroup contents{phase, {}, {}};
  for (std::size_t r = 0; r < ranks; ++r) {
    if (r != me) {
      gathered[r].resize(sizes[r]);
      contents.sends.push_back({static_cast<int>(r), bytes_of(mine)});
      contents.recvs.push_back({static_cast<int>(r), bytes_of(gathered[r])});
    }
  }
  transport.exchange(std::move(contents));
  return gathered;
}

std::vector<std::string> gather(Transport& transport, int root, std::string_view mine,
                                CommPhase phase) {
  Size size = mine.size();
  if (transport.rank() != root) {
    transport.exchange({phase, {{root, bytes_of(size)}}, {}});
    transport.exchange({phase, {{root, bytes_of(mine)}}, {}});
    return {};
  }
  const auto ranks = static_cast<std::size_t>(transport.size());
  std::vector<Size> sizes(ranks, size);
  std::vector<std::string> gathered(ranks);
  MessageGroup lengths{phase, {}, {}};
  MessageGroup contents{phase, {}, {}};
  for (int r = 0; r < transport.size(); ++r) {
    if (r != root) {
      lengths.recvs.push_back({r, bytes_of(sizes[static_cast<std::size_t>(r)])});
    }
  }
  transport.exchange(std::move(lengths));
  for (int r = 0; r < transport.size(); ++r) {
    const auto i = static_cast<std::size_t>(r);
    if (r == root) {
      gathered[i] = mine;
    } else {
      gathered[i].resize(sizes[i]);
      contents.recvs.push_back({r, bytes_of(gathered[i])});
    }
  }
  transport.exchange(std::move(contents));
  return gathered;
}

void broadcast(Transport& transport, int root, std::string& bytes, CommPhase phase) {
  Size size = bytes.size();
  MessageGroup length{phase, {}, {}};
  MessageGroup contents{phase, {}, {}};
  if (transport.rank() == root) {
    for (int r = 0; r < transport.size(); ++r) {
      if (r != root) {
        length.sends.push_back({r, bytes_of(size)});
        contents.sends.push_back({r, bytes_of(std::string_view(bytes))});
      }
    }
    transport.exchange(std::move(length));
  } else {
    length.recvs.push_back({root, bytes_of(size)});
    transport.exchange(std::move(length));
    bytes.resize(size);
    contents.recvs.push_back({root, bytes_of(bytes)});
  }
  transport.exchange(std::move(contents));
}

void barrier(Transport& transport, CommPhase phase) {
  // Dissemination (Hensgen, Finkel, Manber 1988): after round i each rank has heard, at first or
  // second hand, from the 2^(i+1) - 1 before it.
  const int size = transport.size();
  const int me = transport.rank();
  for (int distance = 1; distance < size; distance *= 2) {
    const std::byte sent{1};
    std::byte received{0};
    transport.exchange({phase,
                        {{(me + distance) % size, std::span(&sent, 1)}},
                        {{(me - distance % size + size) % size, std::span(&received, 1)}}});
  }
}

void agree(Transport& transport, CommPhase phase, const std::function<void()>& work) {
  agree_on(transport, phase, outcome_of(work));
}

void wait_patiently(Transport& transport, CommPhase phase, const std::function<bool()>& done) {
  auto pause = kFirstPause;
  const auto all_done = [&] {
    const std::vector<std::string> flags = all_gather(transport, done() ? "1" : "0", phase);
    return std::ranges::all_of(flags, [](const std::string& flag) { return flag == "1"; });
  };
  while (!all_done()) {
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, kLongestPause);
  }
}

void agree_patiently(Transport& transport, CommPhase phase, const std::function<void()>& work) {
  auto outcome = std::async(std::launch::async, [&work] { return outcome_of(work); });
  wait_patiently(transport, phase, [&outcome] {
    return outcome.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  });
  agree_on(transport, phase, outcome.get());
}

}  // namespace cartesian
