#pragma once
// Session: one connection's half of the protocol without a connection: bytes go in and come out,
// the time is passed in, what happened is handed out as events. What both sides share.

#include <cstddef>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "scheduler/control_messages.h"
#include "scheduler/wire.h"

namespace cartesian {

struct SessionLimits {
  Seconds handshake{5};           ///< from the first byte to the registration, however it trickles
  Seconds silence{30};            ///< of a registered peer: without one whole message
  double messages_per_s = 500;    ///< that a peer may send for long
  double burst = 2000;            ///< and at once
  std::size_t outbox = 64 << 20;  ///< bytes that a peer may leave unread
};

/// Not thread-safe.
class Session {
 public:
  Session(const SessionLimits& limits, Seconds now);
  virtual ~Session() = default;

  /// Takes what has come, in pieces of any size. What the protocol does not allow ends the session.
  void receive(std::string_view bytes, Seconds now);
  /// Looks at the deadlines. To be called several times a second.
  void tick(Seconds now);
  /// What is to be sent now; empty if nothing.
  std::string take_output();

  /// The other side has proven that it knows the secret, and neither side has ended it.
  bool registered() const { return stage_ == Stage::member; }
  /// Nothing is read any more; once the output is sent, the connection is to be closed.
  bool ended() const { return stage_ == Stage::ended; }
  /// Why; one sentence that names the peer and the phase.
  const std::string& ending() const { return ending_; }
  /// Ends it; a `why` from outside, such as a connection that was cut.
  void end(std::string_view why);

 protected:
  /// In the order in which they come. `admission`: the peer has proven itself, and whoever owns the
  /// session must say whether it is welcome; what it sends meanwhile waits.
  enum class Stage { opening, proving, admission, member, ended };

  virtual void handle(MessageKind kind, std::string_view payload) = 0;
  /// Who is on the other side, for sentences.
  virtual std::string peer() const = 0;
  /// What ends the handshake where it is, such as "no proof".
  virtual std::string_view awaited() const = 0;

  Stage stage() const { return stage_; }
  void enter(Stage stage) { stage_ = stage; }
  void put(std::string_view frame);
  /// Handles what has come and waits, after the owner admitted the peer.
  void resume(Seconds now);

 private:
  void handle_frames(Seconds now);
  bool within_rate(Seconds now);

  SessionLimits limits_;
  Stage stage_ = Stage::opening;
  Seconds begun_;
  Seconds heard_;   // when the last whole message came
  Seconds filled_;  // when `allowance_` was computed
  double allowance_;
  FrameBuffer inbox_;
  std::string outbox_;
  std::string ending_;
};

}  // namespace cartesian
