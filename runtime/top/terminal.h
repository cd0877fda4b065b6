#pragma once
// Terminal: a screen of its own on a person's terminal, which is as it was when the Terminal is
// gone, however that comes about.

#include <signal.h>  // sigset_t
#include <termios.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "runtime/top/top_screen.h"

namespace cartesian {

/// Of standard output; nothing if it is no terminal.
std::optional<ScreenSize> terminal_size();

enum class TerminalEvent : std::uint8_t {
  none,     ///< the time is over
  ready,    ///< the other descriptor is readable
  key,      ///< of key()
  resized,  ///< or the process was suspended: draw anew
  stopped   ///< INT, TERM or HUP, or nobody types any more
};

/// One at a time, made before other threads: it blocks INT, TERM, HUP, TSTP and WINCH, which
/// threads inherit, and hands them out as events. On Ctrl-Z it gives the terminal back until the
/// process goes on.
class Terminal {
 public:
  /// Whether standard input and output are terminals.
  static bool is_there();

  /// Standard input without echo and lines, standard output's alternate screen without cursor and
  /// wrapping. Throws Error if the system refuses.
  Terminal();
  /// Restores all of it, signals too.
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  /// Replaces what is shown. REQUIRES: `lines` fit terminal_size().
  void show(const std::vector<std::string>& lines);

  TerminalEvent wait(int other_fd, Seconds timeout);
  /// The last that was typed.
  char key() const { return key_; }
  /// The signal of `stopped`; 0 if it was none.
  int signal() const { return signal_; }

 private:
  class Signals {
   public:
    Signals();
    ~Signals();
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;
    int fd() const { return fd_; }

   private:
    sigset_t before_{};
    int fd_ = -1;
  };

  void enter();
  void leave();
  TerminalEvent take_signal();
  TerminalEvent take_key();

  const Signals signals_;
  termios before_{};
  char key_ = 0;
  int signal_ = 0;
};

}  // namespace cartesian
