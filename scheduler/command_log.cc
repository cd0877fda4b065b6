#include "scheduler/command_log.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace cartesian {

const Command& CommandLog::add(std::string kind, std::string payload, std::int64_t at_step,
                               Seconds now) {
  if (kind.size() > Command::kMaxKind || payload.size() > Command::kMaxPayload) {
    throw ConfigError(fmt::format("command '{}': a payload of {} bytes, {} are allowed",
                                  kind.substr(0, Command::kMaxKind), payload.size(),
                                  Command::kMaxPayload));
  }
  CommandStatus status;
  status.command = {next_id_++, at_step, std::move(kind), std::move(payload)};
  status.issued = now;
  status.acknowledged.resize(static_cast<std::size_t>(ranks_));
  if (commands_.size() == kKept) {
    commands_.pop_front();
  }
  ++added_;
  return commands_.emplace_back(std::move(status)).command;
}

void CommandLog::acknowledge(int rank, const Ack& ack, Seconds now) {
  const auto found = std::ranges::find_if(
      commands_, [&](const CommandStatus& status) { return status.command.id == ack.id; });
  if (found == commands_.end() || found->acknowledged[static_cast<std::size_t>(rank)]) {
    return;
  }
  found->acknowledged[static_cast<std::size_t>(rank)] = true;
  ++found->acknowledgements;
  if (!ack.in_time) {
    late_ += found->late.empty() ? 1 : 0;
    found->late.push_back(rank);
  }
  if (found->reached_all()) {
    found->complete = now;
  }
}

std::vector<const Command*> CommandLog::owed(int rank) const {
  std::vector<const Command*> owed;
  for (const CommandStatus& status : commands_) {
    if (!status.acknowledged[static_cast<std::size_t>(rank)]) {
      owed.push_back(&status.command);
    }
  }
  return owed;
}

const CommandStatus* CommandLog::find(std::uint64_t id) const {
  const auto found = std::ranges::find_if(
      commands_, [&](const CommandStatus& status) { return status.command.id == id; });
  return found == commands_.end() ? nullptr : &*found;
}

}  // namespace cartesian
