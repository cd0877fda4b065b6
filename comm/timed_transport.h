#pragma once
// TimedTransport: another transport, and how long this rank waits for it: communication that
// nothing hides, other ranks' lateness included.

#include <vector>

#include "base/clock.h"
#include "comm/transport.h"

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
class TimedTransport final : public Transport {
 public:
  /// All must outlive this.
  TimedTransport(Transport& transport, const Clock& clock, Metrics& metrics);

  /// Since it was made.
  Seconds waited() const { return waited_; }
  /// Groups that are waited for from now on are noted in `spans`; nullptr: none are.
  void record(std::vector<CommSpan>* spans) { spans_ = spans; }

  int rank() const override { return transport_.rank(); }
  int size() const override { return transport_.size(); }
  std::string host() const override { return transport_.host(); }
  std::unique_ptr<Request> post(MessageGroup group) override;
  void exchange(MessageGroup group) override;
  void set_topology(const Topology& topology, std::vector<std::string> hosts) override {
    transport_.set_topology(topology, std::move(hosts));
  }
  void set_step(std::int64_t step) override { transport_.set_step(step); }
  void abort(std::string_view cause) noexcept override { transport_.abort(cause); }
  void finish() override { transport_.finish(); }
  void set_timeout(Seconds timeout) override { transport_.set_timeout(timeout); }

 private:
  class TimedRequest;
  CommSpan span_of(const MessageGroup& group) const;
  /// The wait that began at span.wait_began has ended.
  void note(CommSpan span);

  Transport& transport_;
  const Clock& clock_;
  Counter& counter_;
  Seconds waited_{0};
  std::vector<CommSpan>* spans_ = nullptr;
};

}  // namespace cartesian
