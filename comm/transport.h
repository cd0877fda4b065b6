#pragma once
// Transport: grouped point-to-point messages between the ranks of a job. A group is posted whole
// and completes whole; nothing blocks but wait(), and every wait has a deadline. Progress does not
// need the thread that posted: a backend moves bytes on its own while the caller computes.
// Collectives are written once over this (comm/collectives.h).
//
// Matching: between a pair of ranks the i-th send meets the i-th receive, in the order posted.
// Every rank therefore posts its groups in the same global order. Sizes must agree; a mismatch is a
// bug and is reported as a CommError. Thread-safety: one thread posts and waits; abort() and
// set_timeout() may come from any thread.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"

namespace cartesian {

class Topology;

/// What the caller is doing; errors name it. `layer` is a block index, -1 where none applies.
struct CommPhase {
  std::string_view name = "start";  ///< a string literal: "dispatch", "combine", "all_reduce", ...
  int layer = -1;
};

struct SendOp {
  int peer = 0;
  std::span<const std::byte> bytes;
};
struct RecvOp {
  int peer = 0;
  std::span<std::byte> bytes;
};

/// Sends and receives that complete together. Empty messages are dropped on both sides. Messages to
/// oneself are allowed. The memory must stay valid and untouched (sends) or unread (receives) until
/// wait() returns.
struct MessageGroup {
  CommPhase phase;
  std::vector<SendOp> sends;
  std::vector<RecvOp> recvs;
};

/// A posted group. Destroying it without wait() abandons the group; do so only when the job is
/// ending.
class Request {
 public:
  virtual ~Request() = default;
  virtual bool done() = 0;
  /// Returns when every message is done. Throws CommError, naming rank, peer, phase and layer, at
  /// the deadline, when a peer has failed (with its cause), or when a size does not match.
  virtual void wait() = 0;
  /// After wait(): the other rank whose message was done last; -1 if there was none.
  virtual int last_peer() const = 0;
};

struct TransportOptions {
  /// How long a wait() may last.
  Seconds timeout{120};
  /// Counts messages and bytes sent to other ranks: cartesian_transport_{messages,bytes}_total with
  /// scope="intra|inter", "unknown" before set_topology().
  Metrics* metrics = nullptr;
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// The host this rank runs on, for error messages and for finding nodes.
  virtual std::string host() const = 0;

  virtual std::unique_ptr<Request> post(MessageGroup group) = 0;
  /// post() and wait() in one; a backend may have a quicker way. Returns the request's last_peer().
  virtual int exchange(MessageGroup group) {
    const std::unique_ptr<Request> request = post(std::move(group));
    request->wait();
    return request->last_peer();
  }

  /// From now on traffic is counted by scope, within a node or between nodes, and errors name the
  /// peers' hosts. REQUIRES: one host for every rank.
  virtual void set_topology(const Topology& topology, std::vector<std::string> hosts) = 0;
  /// From now on errors name this step of training; -1: none.
  virtual void set_step(std::int64_t step) = 0;

  /// Tells every other rank that this one has failed, so that their waits end with `cause`, and
  /// waits a moment for them to say that they have heard. Best effort, bounded in time, never
  /// throws. A rank that has itself been told of a failure passes that one on instead of `cause`.
  /// Afterwards only destruction is allowed.
  virtual void abort(std::string_view cause) noexcept = 0;
  /// Collective: ends the job's use of the transport in good order. Without it, destruction assumes
  /// a failure. Calling it again does nothing.
  virtual void finish() = 0;
  /// Sets the deadline of waits that are in progress and still to come.
  virtual void set_timeout(Seconds timeout) = 0;
};

}  // namespace cartesian
