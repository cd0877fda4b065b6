#pragma once
// FailingTransport: a transport whose rank fails when it comes to a certain group of messages.

#include <functional>
#include <string>
#include <vector>

#include "comm/forwarding_transport.h"

namespace cartesian::test {

class FailingTransport final : public ForwardingTransport {
 public:
  /// Counts from arm() on; instead of sending group `at`, from 0, calls `fail`.
  FailingTransport(Transport& transport, int at, std::function<void()> fail)
      : ForwardingTransport(transport), at_(at), fail_(std::move(fail)) {}

  void arm() { armed_ = true; }
  /// Names of the phases of the groups since arm().
  const std::vector<std::string>& phases() const { return phases_; }

  std::unique_ptr<Request> post(MessageGroup group) override {
    count(group);
    return ForwardingTransport::post(std::move(group));
  }
  int exchange(MessageGroup group) override {
    count(group);
    return ForwardingTransport::exchange(std::move(group));
  }

 private:
  void count(const MessageGroup& group) {
    if (armed_) {
      if (static_cast<int>(phases_.size()) == at_) {
        fail_();
      }
      phases_.emplace_back(group.phase.name);
    }
  }

  int at_;
  std::function<void()> fail_;
  bool armed_ = false;
  std::vector<std::string> phases_;
};

}  // namespace cartesian::test
