#pragma once
// What the ucx transport does with its worker: endpoints, messages in flight, and failed ranks'
// last words. Nothing here waits but tell_failure(), settle() and close(), a second at most. Not
// thread-safe: UcxTransport's mutex guards it.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/bootstrap.h"
#include "comm/comm_error.h"
#include "comm/transport.h"
#include "comm/ucx_worker.h"

struct ucp_ep;

namespace cartesian {

/// A posted group. `done` may be read by any thread; the rest once `done`, or under the mutex.
struct UcxGroup {
  CommPhase phase;
  int pending = 0;     ///< messages that are not complete
  std::string error;   ///< what went wrong, or empty
  int last_peer = -1;  ///< other rank of the message that was done last
  std::atomic<bool> done = false;
};

class UcxEngine {
 public:
  /// Collective over `bootstrap`. Throws CommError on every rank if UCX cannot start on one.
  UcxEngine(Bootstrap& bootstrap, Seconds timeout);
  /// Ends what is in flight, so that no memory but the engine's is touched any more.
  ~UcxEngine();
  UcxEngine(const UcxEngine&) = delete;
  UcxEngine& operator=(const UcxEngine&) = delete;

  /// REQUIRES: not closed.
  UcxWorker& worker() { return *worker_; }
  const CommSite& site() const { return site_; }
  void set_hosts(std::vector<std::string> hosts) { site_.hosts = std::move(hosts); }
  void set_step(std::int64_t step) { site_.step = step; }
  int size() const { return static_cast<int>(peers_.size()); }
  /// The first failure that this rank was told of, or told, or saw.
  const std::optional<RankFailure>& failure() const { return failure_; }
  /// Whether there is a failure(). Any thread.
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  bool idle() const { return in_flight_.empty(); }
  std::vector<int> pending_peers(const UcxGroup& group) const;

  void start(const std::shared_ptr<UcxGroup>& group, const MessageGroup& messages);
  /// Cancels a group's receives that have not begun.
  void abandon(const UcxGroup& group);
  /// Sends last words to all other ranks, those it was told, else `cause`, and takes theirs, which
  /// they send once they have heard: all within a second.
  void tell_failure(std::string_view cause);
  /// From now on a connection that breaks is a rank that has ended its work, as this one will.
  void expect_goodbyes() { goodbyes_ = true; }
  /// Lets connections that are being made be made, and what was sent arrive.
  void settle();
  /// Closes the endpoints; in order (what was sent arrives) or by force.
  void close(bool in_order);

 private:
  /// Another rank, or this one.
  struct Peer {
    UcxEngine* engine = nullptr;
    int rank = 0;
    std::string address;
    ucp_ep* endpoint = nullptr;  ///< made when first needed
    std::uint64_t sends = 0;     ///< messages posted so far, which number them
    std::uint64_t recvs = 0;
    bool told = false;  ///< its last words have come
    bool lost = false;  ///< its connection broke, or there is no way to it
  };
  /// How a message ended: a UCP status, and the bytes received.
  struct Ended {
    int status = 0;
    std::size_t received = 0;
  };
  /// One message in flight.
  struct Message {
    UcxEngine* engine = nullptr;
    std::shared_ptr<UcxGroup> group;
    int peer = 0;
    bool is_recv = false;
    std::size_t bytes = 0;
    std::list<Message>::iterator self;
    void* request = nullptr;     ///< UCP's; null while it is being started
    std::optional<Ended> ended;  ///< set if it ended before its start returned
  };
  struct Callbacks;  ///< what UCP calls

  Peer& peer(int rank) { return peers_[static_cast<std::size_t>(rank)]; }
  /// Null, with the peer lost, if there is no way to it.
  ucp_ep* endpoint(Peer& peer);
  Message& add(const std::shared_ptr<UcxGroup>& group, int peer, bool is_recv, std::size_t bytes);
  void start_recv(const std::shared_ptr<UcxGroup>& group, const RecvOp& recv);
  void start_send(const std::shared_ptr<UcxGroup>& group, const SendOp& send);
  /// UCP's start of a message returned `request`.
  void started(Message& message, void* request);
  /// Notes how a message ended, and forgets it.
  void complete(Message& message, Ended ended);
  std::string error_of(const Message& message, Ended ended);
  void lose(Peer& peer, int status);
  void fail(RankFailure failure);
  bool all_others_told() const;
  /// Waits for UCP's requests, and if `drain` for the messages in flight; frees the requests.
  void wait_for(const std::vector<void*>& requests, bool drain);
  void cancel_receives(const UcxGroup* group);

  std::unique_ptr<UcxWorker> worker_;  ///< null once closed
  CommSite site_;
  std::vector<Peer> peers_;
  std::list<Message> in_flight_;
  std::optional<RankFailure> failure_;
  std::atomic<bool> failed_ = false;
  bool goodbyes_ = false;
};

}  // namespace cartesian
