#pragma once
// CommandDesk: takes what an operator asks for, one word in a file, to all ranks, beside rank 0's
// coordinator. Not thread-safe.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/file_system.h"
#include "scheduler/coordinator.h"

namespace cartesian {

inline constexpr const char* kCommandFile = "command";
inline constexpr const char* kStopCommand = "stop";  ///< with a checkpoint, as TERM does
inline constexpr const char* kCheckpointCommand = "checkpoint";  ///< now
inline constexpr const char* kReplanCommand = "replan";          ///< plan from the window so far

class CommandDesk {
 public:
  /// Removes a file that an earlier run has left. All must outlive it but `say`, which is told what
  /// becomes of commands.
  CommandDesk(FileSystem& files, const Clock& clock, Coordinator& coordinator, Path file,
              std::function<void(const std::string&)> say);

  /// Between steps, before `next_step`; `agreed`: the id of the command that all ranks act on now,
  /// or 0. Looks for the file at most once a second, and removes what it has read. What came too
  /// late for a rank is sent anew, some times, for a step that is ever further away.
  void attend(std::int64_t next_step, std::uint64_t agreed);
  /// No step follows: says what was not done.
  void close();

 private:
  /// The file's word; nothing if there is none, or it is being written.
  std::optional<std::string> take_word();
  void issue(std::string kind, std::int64_t next_step);

  struct Issued {
    std::string kind;
    std::uint64_t id = 0;
    std::int64_t at_step = 0;
    int times = 0;
  };

  FileSystem& files_;
  const Clock& clock_;
  Coordinator& coordinator_;
  Path file_;
  std::function<void(const std::string&)> say_;
  Seconds look_at_{0};
  std::optional<Issued> issued_;  ///< and not done yet
};

}  // namespace cartesian
