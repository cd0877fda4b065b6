#pragma once
// The one place that calls MPI: communicators, requests in flight, and failed ranks' last words.
// Nothing here blocks or waits. Not thread-safe: MpiTransport's mutex guards it.

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/comm_error.h"
#include "comm/transport.h"

namespace cartesian {

/// A posted group. `done` may be read by any thread; the rest once `done`, or under the mutex.
struct MpiGroup {
  CommPhase phase;
  int pending = 0;     ///< requests that are not complete
  std::string error;   ///< what went wrong, or empty
  int last_peer = -1;  ///< other rank of the message that was done last
  std::atomic<bool> done = false;
};

class MpiEngine {
 public:
  /// Collective. Initialises MPI unless that has been done. Throws CommError if it cannot.
  MpiEngine();
  /// Leaves MPI as it is.
  ~MpiEngine();
  MpiEngine(const MpiEngine&) = delete;
  MpiEngine& operator=(const MpiEngine&) = delete;

  const CommSite& site() const { return site_; }
  void set_hosts(std::vector<std::string> hosts) { site_.hosts = std::move(hosts); }
  void set_step(std::int64_t step) { site_.step = step; }
  int size() const { return size_; }
  /// The first failure that this rank was told of, or told.
  const std::optional<RankFailure>& failure() const { return failure_; }
  bool idle() const { return parts_.empty(); }
  std::vector<int> pending_peers(const MpiGroup& group) const;

  void start(const std::shared_ptr<MpiGroup>& group, const MessageGroup& messages);
  /// Moves bytes and notes what is complete. Returns whether anything was.
  bool progress();
  /// Takes up a failed rank's last words, unless it looked for them within `interval`.
  void poll_failures(std::chrono::steady_clock::time_point now,
                     std::chrono::steady_clock::duration interval);
  /// Forgets a group; its receives that have not begun are cancelled.
  void abandon(const MpiGroup& group);
  /// Sends last words to all other ranks, those it was told, else `cause`, and takes theirs, which
  /// they send once they have heard: all within a second.
  void tell_failure(std::string_view cause);
  /// Collective. Frees the communicators, and finalises MPI if the constructor initialised it.
  void finalise();

 private:
  /// What belongs to one request in flight.
  struct Part {
    std::shared_ptr<MpiGroup> group;
    int peer = 0;
    bool is_recv = false;
    std::size_t bytes = 0;
  };
  struct Mpi;  ///< what needs MPI's types

  /// Takes up one rank's last words, if there are any.
  bool receive_failure();

  /// Notes the newest request, whose start returned `code`.
  void started(Part part, int code);
  /// What is wrong with a part that completed as number `completed` of a progress() whose test
  /// returned `code`, or empty.
  std::string error_of(const Part& part, std::size_t completed, int code) const;
  std::string mpi_error(const Part& part, int code) const;

  std::unique_ptr<Mpi> mpi_;
  CommSite site_;
  int size_ = 0;
  std::vector<Part> parts_;  ///< parts_[i] belongs to request i
  std::optional<RankFailure> failure_;
  int heard_ = 0;  ///< ranks whose last words have come
  std::chrono::steady_clock::time_point last_failure_poll_{};
};

}  // namespace cartesian
