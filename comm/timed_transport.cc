#include "comm/timed_transport.h"

namespace cartesian {

class TimedTransport::TimedRequest final : public Request {
 public:
  TimedRequest(TimedTransport& owner, std::unique_ptr<Request> request, CommSpan span)
      : owner_(owner), request_(std::move(request)), span_(span) {}
  bool done() override { return request_->done(); }
  void wait() override {
    span_.wait_began = owner_.clock_.now();
    request_->wait();
    owner_.note(span_, request_->last_peer());
  }
  int last_peer() const override { return request_->last_peer(); }

 private:
  TimedTransport& owner_;
  std::unique_ptr<Request> request_;
  CommSpan span_;
};

TimedTransport::TimedTransport(Transport& transport, const Clock& clock, Metrics& metrics)
    : ForwardingTransport(transport),
      clock_(clock),
      counter_(metrics.counter("cartesian_transport_wait_seconds_total")),
      waited_by_peer_(static_cast<std::size_t>(transport.size())) {}

std::unique_ptr<Request> TimedTransport::post(MessageGroup group) {
  const CommSpan span = span_of(group);
  return std::make_unique<TimedRequest>(*this, ForwardingTransport::post(std::move(group)), span);
}

int TimedTransport::exchange(MessageGroup group) {
  CommSpan span = span_of(group);
  span.wait_began = span.posted;
  const int last_peer = ForwardingTransport::exchange(std::move(group));
  note(span, last_peer);
  return last_peer;
}

CommSpan TimedTransport::span_of(const MessageGroup& group) const {
  CommSpan span{.phase = group.phase, .posted = clock_.now()};
  for (const SendOp& send : group.sends) {
    span.bytes_sent += send.peer == rank() ? 0 : send.bytes.size();
  }
  return span;
}

void TimedTransport::note(CommSpan span, int last_peer) {
  span.ended = clock_.now();
  const double waited = (span.ended - span.wait_began).count();
  waited_ += span.ended - span.wait_began;
  counter_.add(waited);
  if (last_peer >= 0) {
    waited_by_peer_[static_cast<std::size_t>(last_peer)] += waited;
  }
  if (spans_ != nullptr) {
    spans_->push_back(span);
  }
}

}  // namespace cartesian
