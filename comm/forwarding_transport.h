#pragma once
// ForwardingTransport: another transport, for those that look at what passes through.

#include "comm/transport.h"

namespace cartesian {

/// Thread-safety: as Transport.
class ForwardingTransport : public Transport {
 public:
  /// `transport` must outlive this.
  explicit ForwardingTransport(Transport& transport) : transport_(transport) {}

  int rank() const override { return transport_.rank(); }
  int size() const override { return transport_.size(); }
  std::string host() const override { return transport_.host(); }
  std::unique_ptr<Request> post(MessageGroup group) override {
    return transport_.post(std::move(group));
  }
  int exchange(MessageGroup group) override { return transport_.exchange(std::move(group)); }
  void set_topology(const Topology& topology, std::vector<std::string> hosts) override {
    transport_.set_topology(topology, std::move(hosts));
  }
  void set_step(std::int64_t step) override { transport_.set_step(step); }
  void abort(std::string_view cause) noexcept override { transport_.abort(cause); }
  void finish() override { transport_.finish(); }
  void set_timeout(Seconds timeout) override { transport_.set_timeout(timeout); }

 private:
  Transport& transport_;
};

}  // namespace cartesian
