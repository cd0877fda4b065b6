#pragma once
// CommandLog: the commands of a job, and which ranks have them.

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "base/clock.h"
#include "scheduler/control_messages.h"

namespace cartesian {

struct CommandStatus {
  Command command;
  Seconds issued{};
  std::vector<bool> acknowledged;  ///< [ranks]
  int acknowledgements = 0;
  std::vector<int> late;  ///< ranks that had begun the step when it came: they will not act on it
  Seconds complete{};     ///< when the last rank acknowledged

  bool reached_all() const { return acknowledgements == static_cast<int>(acknowledged.size()); }
};

/// Keeps the last kKept commands. Not thread-safe.
class CommandLog {
 public:
  static constexpr std::size_t kKept = 64;

  /// Ids count from `first_id`, which should be random: a coordinator that is started anew then
  /// uses others than the one before.
  CommandLog(int ranks, std::uint64_t first_id) : ranks_(ranks), next_id_(first_id) {}

  /// Throws ConfigError for a kind or payload that is too long.
  const Command& add(std::string kind, std::string payload, std::int64_t at_step, Seconds now);
  /// Unknown ids, and what was acknowledged before, are ignored.
  void acknowledge(int rank, const Ack& ack, Seconds now);
  /// What `rank` has not acknowledged, in order: to be sent again when it returns. Good until
  /// add().
  std::vector<const Command*> owed(int rank) const;
  /// Null if it is not kept.
  const CommandStatus* find(std::uint64_t id) const;
  /// Commands added since the beginning, and those of them that were late at some rank.
  std::int64_t added() const { return added_; }
  std::int64_t late() const { return late_; }

 private:
  int ranks_;
  std::uint64_t next_id_;
  std::deque<CommandStatus> commands_;
  std::int64_t added_ = 0;
  std::int64_t late_ = 0;
};

}  // namespace cartesian
