#pragma once
// TimedTransport: another transport, and how long this rank waits for it: communication that
// nothing hides, other ranks' lateness included.

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
  /// Groups that are waited for from now on are noted in `spans`; nullptr: none are.
  void record(std::vector<CommSpan>* spans) { spans_ = spans; }

  std::unique_ptr<Request> post(MessageGroup group) override;
  void exchange(MessageGroup group) override;

 private:
  class TimedRequest;
  CommSpan span_of(const MessageGroup& group) const;
  /// The wait that began at span.wait_began has ended.
  void note(CommSpan span);

  const Clock& clock_;
  Counter& counter_;
  Seconds waited_{0};
  std::vector<CommSpan>* spans_ = nullptr;
};

}  // namespace cartesian
