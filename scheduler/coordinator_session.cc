#include "scheduler/coordinator_session.h"

#include <fmt/format.h>

#include <utility>

#include "base/check.h"

namespace cartesian {

CoordinatorSession::CoordinatorSession(const JobSecret& secret, int ranks, const Nonce& nonce,
                                       const SessionLimits& limits, Seconds now)
    : Session(limits, now), secret_(secret), ranks_(ranks), nonce_(nonce) {}

std::vector<CoordinatorEvent> CoordinatorSession::take_events() {
  return std::exchange(events_, {});
}

std::string CoordinatorSession::peer() const {
  return rank_ < 0 ? "a stranger" : fmt::format("rank {} ({})", rank_, hello_.host);
}

std::string_view CoordinatorSession::awaited() const {
  return stage() == Stage::opening ? "no hello" : "no proof";
}

void CoordinatorSession::handle(MessageKind kind, std::string_view payload) {
  if (registered()) {
    handle_member(kind, payload);
  } else if (stage() == Stage::opening && kind == MessageKind::hello) {
    handle_hello(payload);
  } else if (stage() == Stage::proving && kind == MessageKind::proof) {
    handle_proof(payload);
  } else {
    end(fmt::format("an unexpected message of kind {}", static_cast<int>(kind)));
  }
}

void CoordinatorSession::handle_hello(std::string_view payload) {
  transcript_ = payload;
  hello_ = Hello::decode(payload);
  if (hello_.version != kProtocolVersion) {
    refuse(fmt::format("protocol version {} where the coordinator has {}", hello_.version,
                       kProtocolVersion));
    return;
  }
  put(to_frame(MessageKind::challenge, Challenge{nonce_}));
  enter(Stage::proving);
}

void CoordinatorSession::handle_proof(std::string_view payload) {
  const Proof proof = Proof::decode(payload);
  if (!same_proof(proof.proof, secret_.prove("agent", transcript_, nonce_))) {
    refuse("the secret is not this job's");
    return;
  }
  if (hello_.ranks != ranks_ || hello_.rank < 0 || hello_.rank >= ranks_) {
    refuse(
        fmt::format("rank {} of {} where the job has {} ranks", hello_.rank, hello_.ranks, ranks_));
    return;
  }
  rank_ = hello_.rank;
  enter(Stage::admission);
  events_.emplace_back(hello_);
}

void CoordinatorSession::admit(Seconds now) {
  if (ended()) {
    return;
  }
  check(stage() == Stage::admission, "admit() without a rank that waits for it");
  put(to_frame(MessageKind::welcome, Welcome{secret_.prove("coordinator", transcript_, nonce_)}));
  enter(Stage::member);
  resume(now);
}

void CoordinatorSession::refuse(std::string_view reason) {
  if (!ended()) {
    put(to_frame(MessageKind::refused, Refused{std::string(reason)}));
    end(reason);
  }
}

void CoordinatorSession::handle_member(MessageKind kind, std::string_view payload) {
  switch (kind) {
    case MessageKind::heartbeat:
      events_.emplace_back(Heartbeat::decode(payload));
      put(to_frame(MessageKind::heartbeat, Heartbeat{step_}));
      break;
    case MessageKind::step_report:
      events_.emplace_back(StepReport::decode(payload));
      break;
    case MessageKind::ack:
      events_.emplace_back(Ack::decode(payload));
      break;
    case MessageKind::goodbye:
      events_.emplace_back(Goodbye::decode(payload));
      end("said goodbye");
      break;
    default:
      end(fmt::format("an unexpected message of kind {}", static_cast<int>(kind)));
  }
}

void CoordinatorSession::send(const Command& command) {
  if (registered()) {
    put(to_frame(MessageKind::command, command));
  }
}

}  // namespace cartesian
