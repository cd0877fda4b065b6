#pragma once
// TimedTransport: another transport, and how long this rank waits for it: communication that
// nothing hides, other ranks' lateness included.

#include <span>
#include <vector>

#include "base/clock.h"
#include "comm/forwarding_transport.h"

namespace cartesian {

/// A group of messages, by this rank's clock.
struct CommSpan {
  CommPhase phase;
  Seconds posted{};
  Seconds wait_began{};
  Seconds ended{};  ///< of the wait; the messages may have been there before
  std::size_t bytes_sent = 0;
};

/// Counts cartesian_transport_wait_seconds_total. Thread-safety: as Transport.
class TimedTransport final : public ForwardingTransport {
 public:
  /// All must outlive this.
  TimedTransport(Transport& transport, const Clock& clock, Metrics& metrics);

  /// Since it was made.
  Seconds waited() const { return waited_; }
  /// [ranks] seconds of waited() by whom they were spent on: all of a wait counts for the peer
  /// whose message was done last (Request::last_peer()), be it that it was late or that its link is
  /// slow.
  std::span<const double> waited_by_peer() const { return waited_by_peer_; }
  /// Groups that are waited for from now on are noted in `spans`; nullptr: none are.
  void record(std::vector<CommSpan>* spans) { spans_ = spans; }

  std::unique_ptr<Request> post(MessageGroup group) override;
  int exchange(MessageGroup group) override;

 private:
  class TimedRequest;
  CommSpan span_of(const MessageGroup& group) const;
  /// The wait that began at span.wait_began has ended, by a message of `last_peer` if that is >= 0.
  void note(CommSpan span, int last_peer);

  const Clock& clock_;
  Counter& counter_;
  Seconds waited_{0};
  std::vector<double> waited_by_peer_;
  std::vector<CommSpan>* spans_ = nullptr;
};

}  // namespace cartesian
