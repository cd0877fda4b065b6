#pragma once
// JobState: what the coordinator knows of its job. It has no connections and no threads; time comes
// from a Clock.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "scheduler/command_log.h"
#include "scheduler/control_messages.h"
#include "scheduler/step_report.h"
#include "scheduler/straggler_watch.h"

namespace cartesian {

/// absent: never seen. late: connected, but silent. lost: its connection broke a moment ago.
/// dead: silent or lost for too long, or its goodbye says that it failed. finished: said goodbye.
enum class RankHealth : std::uint8_t { absent, alive, late, lost, dead, finished };
inline constexpr std::size_t kRankHealths = 6;
std::string_view name_of(RankHealth health);

struct JobLimits {
  Seconds late{5};     ///< of silence
  Seconds dead{30};    ///< of silence, or without a connection
  int margin = 3;      ///< steps from the highest that is known to the one of a command
  Seconds absent{10};  ///< from the beginning, until a rank that was never seen is overdue
};

struct RankStatus {
  std::uint64_t connection = 0;  ///< 0: none
  std::uint64_t instance = 0;
  std::int64_t pid = 0;
  std::string host;
  int registrations = 0;
  Seconds heard{};                   ///< when its last message came
  std::int64_t step = -1;            ///< the highest that it told
  std::int64_t reported = -1;        ///< the highest step that its process reported
  std::optional<StepReport> latest;  ///< its last report
  std::optional<Goodbye> goodbye;
  std::string cause;  ///< why its connection ended, if it did
};

/// Whether a rank may register, and which connection it takes the place of.
struct Admission {
  std::string refusal;  ///< empty: it may
  std::uint64_t replaced = 0;
};

/// Those of `ranks`, with their hosts, as a list to read: all of few, the first of many.
std::string list_ranks(const std::vector<int>& ranks, const JobShape& shape);

/// Is told of every report that counts, once.
using ReportObserver = std::function<void(int rank, const StepReport& report)>;

/// Not thread-safe. REQUIRES everywhere: 0 <= rank < shape.ranks.
class JobState {
 public:
  /// `clock` must outlive it. For `first_command` see CommandLog.
  JobState(JobShape shape, const Clock& clock, const JobLimits& limits,
           std::uint64_t first_command);

  /// A rank with the right secret came by `connection`, which is not 0. Another process for a rank
  /// that has a connection is refused; the same process takes its old connection's place.
  Admission admit(const Hello& hello, std::uint64_t connection);
  /// The connection ended; ignored if it is not the rank's present one.
  void disconnect(int rank, std::uint64_t connection, std::string_view cause);
  void heartbeat(int rank, const Heartbeat& heartbeat);
  /// Returns what is wrong with it, and then ignores it; empty if nothing is. A step that the same
  /// process has reported before is heard, but does not count again.
  std::string report(int rank, StepReport report);
  /// From now on; null: nobody.
  void observe(ReportObserver observer) { observer_ = std::move(observer); }
  void goodbye(int rank, const Goodbye& goodbye);
  void acknowledge(int rank, const Ack& ack) { commands_.acknowledge(rank, ack, clock_.now()); }

  const JobShape& shape() const { return shape_; }
  const RankStatus& rank(int rank) const { return ranks_[static_cast<std::size_t>(rank)]; }
  RankHealth health(int rank) const;
  /// Ranks in this state, ascending.
  std::vector<int> in_health(RankHealth health) const;
  /// Ranks that are absent though limits.absent has passed, ascending.
  std::vector<int> overdue() const;
  /// All ranks have said goodbye.
  bool over() const;
  /// The highest step that any rank told, or -1.
  std::int64_t step() const { return step_; }

  /// A command for all ranks, before the step that is limits.margin above the highest known, or
  /// before `earliest` if that is later, for who knows better than reports how far ranks are. It
  /// must then be sent to every connection. Throws ConfigError if it is too long. Good until the
  /// next.
  const Command& command(std::string kind, std::string payload, std::int64_t earliest = 0);
  const CommandLog& commands() const { return commands_; }

  /// By the last steps that all ranks have reported.
  const StragglerWatch& stragglers() const { return stragglers_; }

 private:
  RankStatus& hear(int rank, std::int64_t step);

  JobShape shape_;
  const Clock& clock_;
  JobLimits limits_;
  Seconds began_;
  std::vector<RankStatus> ranks_;
  std::int64_t step_ = -1;
  CommandLog commands_;
  StragglerWatch stragglers_;
  ReportObserver observer_;
};

}  // namespace cartesian
