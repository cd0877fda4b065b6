#include "scheduler/agent_session.h"

#include <fmt/format.h>

#include <utility>

namespace cartesian {

AgentSession::AgentSession(const JobSecret& secret, const Hello& hello, const SessionLimits& limits,
                           Seconds now)
    : Session(limits, now), secret_(secret), hello_(hello), transcript_(hello.encode()) {
  put(to_frame(MessageKind::hello, hello_));
}

std::vector<Command> AgentSession::take_commands() { return std::exchange(commands_, {}); }

std::string AgentSession::peer() const {
  return fmt::format("rank {} ({}): the coordinator", hello_.rank, hello_.host);
}

std::string_view AgentSession::awaited() const {
  return stage() == Stage::opening ? "no challenge" : "no welcome";
}

void AgentSession::handle(MessageKind kind, std::string_view payload) {
  if (kind == MessageKind::refused && !registered()) {
    end("refused: " + Refused::decode(payload).reason);
  } else if (stage() == Stage::opening && kind == MessageKind::challenge) {
    handle_challenge(payload);
  } else if (stage() == Stage::proving && kind == MessageKind::welcome) {
    handle_welcome(payload);
  } else if (registered() && kind == MessageKind::command) {
    commands_.push_back(Command::decode(payload));
  } else if (registered() && kind == MessageKind::heartbeat) {
    job_step_ = Heartbeat::decode(payload).step;
  } else {
    end(fmt::format("an unexpected message of kind {}", static_cast<int>(kind)));
  }
}

void AgentSession::handle_challenge(std::string_view payload) {
  challenge_ = Challenge::decode(payload).nonce;
  put(to_frame(MessageKind::proof, Proof{secret_.prove("agent", transcript_, challenge_)}));
  enter(Stage::proving);
}

void AgentSession::handle_welcome(std::string_view payload) {
  const Welcome welcome = Welcome::decode(payload);
  if (!same_proof(welcome.proof, secret_.prove("coordinator", transcript_, challenge_))) {
    end("does not know the job's secret");
    return;
  }
  enter(Stage::member);
}

}  // namespace cartesian
