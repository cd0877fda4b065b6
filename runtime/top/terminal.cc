#include "runtime/top/terminal.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <system_error>

#include "base/error.h"

namespace cartesian {

namespace {

// Alternate screen, no cursor, no wrapping; and back.
constexpr std::string_view kEnter = "\x1b[?1049h\x1b[?25l\x1b[?7l";
constexpr std::string_view kLeave = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
constexpr std::string_view kHome = "\x1b[H";
constexpr std::string_view kClearRight = "\x1b[K";
constexpr std::string_view kClearBelow = "\x1b[J";

[[noreturn]] void fail(std::string_view what) {
  throw Error(fmt::format("top: {}: {}", what, std::generic_category().message(errno)));
}

/// False if the terminal has gone.
bool write_all(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno != EINTR && errno != EAGAIN) {
      return false;
    }
    text.remove_prefix(written < 0 ? 0 : static_cast<std::size_t>(written));
  }
  return true;
}

sigset_t handled_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTSTP, SIGWINCH}) {
    sigaddset(&signals, signal);
  }
  return signals;
}

}  // namespace

std::optional<ScreenSize> terminal_size() {
  winsize window{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_col == 0 || window.ws_row == 0) {
    return std::nullopt;
  }
  return ScreenSize{.width = window.ws_col, .height = window.ws_row};
}

Terminal::Signals::Signals() {
  const sigset_t handled = handled_signals();
  fd_ = signalfd(-1, &handled, SFD_CLOEXEC);
  if (fd_ < 0) {
    fail("no signal descriptor");
  }
  pthread_sigmask(SIG_BLOCK, &handled, &before_);
}

Terminal::Signals::~Signals() {
  close(fd_);
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

bool Terminal::is_there() { return isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1; }

Terminal::Terminal() {
  if (tcgetattr(STDIN_FILENO, &before_) != 0) {
    fail("the terminal cannot be asked");
  }
  enter();
}

Terminal::~Terminal() { leave(); }

void Terminal::enter() {
  termios raw = before_;
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);  // signals' keys stay
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) != 0) {
    fail("the terminal cannot be set");
  }
  write_all(kEnter);
}

void Terminal::leave() {
  write_all(kLeave);
  tcsetattr(STDIN_FILENO, TCSAFLUSH, &before_);
}

void Terminal::show(const std::vector<std::string>& lines) {
  std::string text(kHome);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    text += i == 0 ? "" : "\r\n";
    text += lines[i];
    text += kClearRight;
  }
  text += kClearBelow;
  write_all(text);
}

TerminalEvent Terminal::wait(int other_fd, Seconds timeout) {
  std::array<pollfd, 3> fds = {pollfd{signals_.fd(), POLLIN, 0}, pollfd{STDIN_FILENO, POLLIN, 0},
                               pollfd{other_fd, POLLIN, 0}};
  const auto milliseconds =
      static_cast<int>(std::ceil(std::clamp(timeout.count(), 0.0, 1e6) * 1e3));
  if (poll(fds.data(), fds.size(), milliseconds) < 0) {
    if (errno == EINTR) {
      return TerminalEvent::none;
    }
    fail("poll");
  }
  if (fds[0].revents != 0) {
    return take_signal();
  }
  if (fds[1].revents != 0) {
    return take_key();
  }
  return fds[2].revents != 0 ? TerminalEvent::ready : TerminalEvent::none;
}

TerminalEvent Terminal::take_signal() {
  signalfd_siginfo info{};
  if (read(signals_.fd(), &info, sizeof(info)) != sizeof(info)) {
    return TerminalEvent::none;
  }
  const auto number = static_cast<int>(info.ssi_signo);
  if (number == SIGTSTP) {
    leave();
    kill(getpid(), SIGSTOP);
    enter();
    return TerminalEvent::resized;
  }
  if (number == SIGWINCH) {
    return TerminalEvent::resized;
  }
  signal_ = number;
  return TerminalEvent::stopped;
}

TerminalEvent Terminal::take_key() {
  const ssize_t got = read(STDIN_FILENO, &key_, 1);
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) {
    return TerminalEvent::none;
  }
  return got == 1 ? TerminalEvent::key : TerminalEvent::stopped;
}

}  // namespace cartesian
