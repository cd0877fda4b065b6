#pragma once
// GroupMeter: another transport, and what its groups of messages send to each rank.

#include <span>
#include <vector>

#include "base/topology.h"
#include "comm/forwarding_transport.h"

namespace cartesian {

/// Thread-safety: as Transport.
class GroupMeter final : public ForwardingTransport {
 public:
  using ForwardingTransport::ForwardingTransport;

  /// Forgets the groups so far.
  void restart() { bytes_.clear(); }
  /// [groups][ranks] bytes sent there, in the order posted, which all ranks have.
  std::span<const double> bytes() const { return bytes_; }

  std::unique_ptr<Request> post(MessageGroup group) override {
    count(group);
    return ForwardingTransport::post(std::move(group));
  }
  int exchange(MessageGroup group) override {
    count(group);
    return ForwardingTransport::exchange(std::move(group));
  }

 private:
  void count(const MessageGroup& group);

  std::vector<double> bytes_;
};

/// What the busiest node sends to others or is sent by them, group by group, in all: no network
/// carries the groups one after the other faster than a node's link carries so many bytes. `sent`:
/// of each rank what GroupMeter::bytes() says.
double busiest_link_bytes(std::span<const std::vector<double>> sent, const Topology& topology);

}  // namespace cartesian
