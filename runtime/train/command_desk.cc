#include "runtime/train/command_desk.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace cartesian {

namespace {

constexpr std::array<std::string_view, 3> kCommands = {kStopCommand, kCheckpointCommand,
                                                       kReplanCommand};
constexpr Seconds kBetweenLooks{1};
/// Steps from now to the one of a command, which is twice as far away each time.
constexpr std::int64_t kFirstMargin = 3;
constexpr int kMostTimes = 12;

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  const auto last = text.find_last_not_of(" \t\r\n");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

}  // namespace

CommandDesk::CommandDesk(FileSystem& files, const Clock& clock, Coordinator& coordinator, Path file,
                         std::function<void(const std::string&)> say)
    : files_(files),
      clock_(clock),
      coordinator_(coordinator),
      file_(std::move(file)),
      say_(std::move(say)) {
  if (files_.exists(file_)) {
    files_.remove_all(file_);
    say_(fmt::format("{}: left by an earlier run, removed", file_.string()));
  }
}

void CommandDesk::attend(std::int64_t next_step, std::uint64_t agreed) {
  if (issued_ && issued_->id == agreed) {
    say_(fmt::format("{}: all ranks do it after step {}", issued_->kind, next_step - 1));
    issued_.reset();
  } else if (issued_ && next_step >= issued_->at_step) {
    if (issued_->times < kMostTimes) {
      issue(issued_->kind, next_step);
    } else {
      close();
    }
  }
  if (!issued_ && clock_.now() >= look_at_) {
    look_at_ = clock_.now() + kBetweenLooks;
    if (const std::optional<std::string> word = take_word()) {
      issue(*word, next_step);
    }
  }
}

void CommandDesk::close() {
  if (issued_) {
    say_(fmt::format("{}: not done: sent {} times, and never to all ranks in time", issued_->kind,
                     issued_->times));
    issued_.reset();
  }
}

std::optional<std::string> CommandDesk::take_word() {
  try {
    if (!files_.exists(file_)) {
      return std::nullopt;
    }
    const std::string word = trimmed(files_.read(file_));
    if (word.empty()) {
      return std::nullopt;
    }
    files_.remove_all(file_);
    if (std::ranges::find(kCommands, word) != kCommands.end()) {
      return word;
    }
    say_(fmt::format("{}: must be {}, and was not done", file_.string(),
                     fmt::join(kCommands, " or ")));
  } catch (const FileError& error) {  // an operator's mistake must not end the run
    say_(error.what());
  }
  return std::nullopt;
}

void CommandDesk::issue(std::string kind, std::int64_t next_step) {
  Issued issued{.kind = std::move(kind), .times = issued_ ? issued_->times + 1 : 1};
  issued.id =
      coordinator_.command(issued.kind, "", next_step + (kFirstMargin << (issued.times - 1)));
  coordinator_.inspect([&](const JobState& state) {
    issued.at_step = state.commands().find(issued.id)->command.at_step;
  });
  issued_ = std::move(issued);
}

}  // namespace cartesian
