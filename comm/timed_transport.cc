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
    owner_.note(span_);
  }

 private:
  TimedTransport& owner_;
  std::unique_ptr<Request> request_;
  CommSpan span_;
};

TimedTransport::TimedTransport(Transport& transport, const Clock& clock, Metrics& metrics)
    : ForwardingTransport(transport),
      clock_(clock),
      counter_(metrics.counter("cartesian_transport_wait_seconds_total")) {}

std::unique_ptr<Request> TimedTransport::post(MessageGroup group) {
  const CommSpan span = span_of(group);
  return std::make_unique<TimedRequest>(*this, ForwardingTransport::post(std::move(group)), span);
}

void TimedTransport::exchange(MessageGroup group) {
  CommSpan span = span_of(group);
  span.wait_began = span.posted;
  ForwardingTransport::exchange(std::move(group));
  note(span);
}

CommSpan TimedTransport::span_of(const MessageGroup& group) const {
  CommSpan span{.phase = group.phase, .posted = clock_.now()};
  for (const SendOp& send : group.sends) {
    span.bytes_sent += send.peer == rank() ? 0 : send.bytes.size();
  }
  return span;
}

void TimedTransport::note(CommSpan span) {
  span.ended = clock_.now();
  waited_ += span.ended - span.wait_began;
  counter_.add((span.ended - span.wait_began).count());
  if (spans_ != nullptr) {
    spans_->push_back(span);
  }
}

}  // namespace cartesian
