#pragma once
// FailingTransport: a transport whose rank fails when it comes to a certain group of messages.

#include <functional>
#include <string>
#include <vector>

#include "comm/transport.h"

namespace cartesian::test {

class FailingTransport final : public Transport {
 public:
  /// Counts from arm() on; instead of sending group `at`, from 0, calls `fail`.
  FailingTransport(Transport& transport, int at, std::function<void()> fail)
      : transport_(transport), at_(at), fail_(std::move(fail)) {}

  void arm() { armed_ = true; }
  /// Names of the phases of the groups since arm().
  const std::vector<std::string>& phases() const { return phases_; }

  int rank() const override { return transport_.rank(); }
  int size() const override { return transport_.size(); }
  std::string host() const override { return transport_.host(); }
  std::unique_ptr<Request> post(MessageGroup group) override {
    count(group);
    return transport_.post(std::move(group));
  }
  void exchange(MessageGroup group) override {
    count(group);
    transport_.exchange(std::move(group));
  }
  void set_topology(const Topology& topology, std::vector<std::string> hosts) override {
    transport_.set_topology(topology, std::move(hosts));
  }
  void set_step(std::int64_t step) override { transport_.set_step(step); }
  void abort(std::string_view cause) noexcept override { transport_.abort(cause); }
  void finish() override { transport_.finish(); }
  void set_timeout(Seconds timeout) override { transport_.set_timeout(timeout); }

 private:
  void count(const MessageGroup& group) {
    if (armed_) {
      if (static_cast<int>(phases_.size()) == at_) {
        fail_();
      }
      phases_.emplace_back(group.phase.name);
    }
  }

  Transport& transport_;
  int at_;
  std::function<void()> fail_;
  bool armed_ = false;
  std::vector<std::string> phases_;
};

}  // namespace cartesian::test
