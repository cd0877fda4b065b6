#pragma once
// The messages of the control plane but for step reports. In the order in which they come: the
// agent's Hello, the coordinator's Challenge, the agent's Proof, the coordinator's Welcome; then
// the agent's Heartbeats (each answered by one), step reports, Acks and Goodbye, and the
// coordinator's Commands. Refused may take the place of whatever the coordinator would say.
//
// Each decode() throws FormatError for what is cut short, too long or out of range. Texts are
// printable ASCII when they come out.

#include <cstdint>
#include <string>
#include <string_view>

#include "scheduler/secret.h"
#include "scheduler/step_report.h"
#include "scheduler/wire.h"

namespace cartesian {

inline constexpr std::uint8_t kProtocolVersion = 2;

enum class MessageKind : std::uint8_t {
  hello = 1,
  challenge,
  proof,
  welcome,
  refused,
  heartbeat,
  step_report,
  command,
  ack,
  goodbye
};

struct Hello {
  std::uint8_t version = kProtocolVersion;
  std::int32_t rank = 0;
  std::int32_t ranks = 1;
  std::uint64_t instance = 0;  ///< random, one a process: a return is told from a duplicate
  std::int64_t pid = 0;
  std::string host;
  Nonce nonce{};

  std::string encode() const;
  /// Of another version only `version` is read: the rest may differ.
  static Hello decode(std::string_view payload);
  bool operator==(const Hello&) const = default;
};

struct Challenge {
  Nonce nonce{};

  std::string encode() const;
  static Challenge decode(std::string_view payload);
  bool operator==(const Challenge&) const = default;
};

/// That the agent knows the secret.
struct Proof {
  Proof256 proof{};

  std::string encode() const;
  static Proof decode(std::string_view payload);
  bool operator==(const Proof&) const = default;
};

/// The rank is registered; with the proof that the coordinator knows the secret, too.
struct Welcome {
  Proof256 proof{};

  std::string encode() const;
  static Welcome decode(std::string_view payload);
  bool operator==(const Welcome&) const = default;
};

struct Refused {
  std::string reason;

  std::string encode() const;
  static Refused decode(std::string_view payload);
  bool operator==(const Refused&) const = default;
};

/// "I am here", at the step that a rank is in (-1 before the first), or the highest of all ranks
/// where the coordinator says it.
struct Heartbeat {
  std::int64_t step = -1;

  std::string encode() const;
  static Heartbeat decode(std::string_view payload);
  bool operator==(const Heartbeat&) const = default;
};

/// What all ranks are to do before the same step.
struct Command {
  std::uint64_t id = 0;
  std::int64_t at_step = 0;
  std::string kind;  ///< at most kMaxKind bytes
  std::string payload;

  static constexpr std::size_t kMaxKind = 64;
  static constexpr std::size_t kMaxPayload = kMemberFrame - 4096;

  std::string encode() const;
  static Command decode(std::string_view payload);
  bool operator==(const Command&) const = default;
};

/// A rank has a command, and had not begun its step when it came (`in_time`).
struct Ack {
  std::uint64_t id = 0;
  bool in_time = true;

  std::string encode() const;
  static Ack decode(std::string_view payload);
  bool operator==(const Ack&) const = default;
};

struct Goodbye {
  std::int32_t exit_code = 0;  ///< 0: done; 75: stopped with a checkpoint; else it failed
  std::string reason;

  bool failed() const { return exit_code != 0 && exit_code != 75; }

  std::string encode() const;
  static Goodbye decode(std::string_view payload);
  bool operator==(const Goodbye&) const = default;
};

inline std::string to_frame(MessageKind kind, const auto& message) {
  return make_frame(static_cast<std::uint8_t>(kind), message.encode());
}

}  // namespace cartesian
