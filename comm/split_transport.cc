#include "comm/split_transport.h"

#include <optional>

#include "base/topology.h"

namespace cartesian {

namespace {

/// Either may be null: nothing of the group travels there.
class SplitRequest final : public Request {
 public:
  SplitRequest(std::unique_ptr<Request> intra, std::unique_ptr<Request> inter)
      : intra_(std::move(intra)), inter_(std::move(inter)) {}
  bool done() override { return is_done(inter_) && is_done(intra_); }
  void wait() override {
    if (inter_ != nullptr) {
      inter_->wait();
      last_peer_ = inter_->last_peer();
    }
    if (intra_ != nullptr) {
      const bool was_done = inter_ != nullptr && intra_->done();
      intra_->wait();
      last_peer_ = was_done ? last_peer_ : intra_->last_peer();
    }
  }
  int last_peer() const override { return last_peer_; }

 private:
  static bool is_done(const std::unique_ptr<Request>& request) {
    return request == nullptr || request->done();
  }

  std::unique_ptr<Request> intra_;
  std::unique_ptr<Request> inter_;
  int last_peer_ = -1;
};

bool is_empty(const MessageGroup& group) { return group.sends.empty() && group.recvs.empty(); }

class SplitTransport final : public Transport {
 public:
  SplitTransport(Transport& intra, Transport& inter) : intra_(intra), inter_(inter) {}

  int rank() const override { return inter_.rank(); }
  int size() const override { return inter_.size(); }
  std::string host() const override { return inter_.host(); }

  std::unique_ptr<Request> post(MessageGroup group) override {
    auto [within, between] = split(std::move(group));
    std::unique_ptr<Request> inter;
    if (!is_empty(between)) {
      inter = inter_.post(std::move(between));
    }
    std::unique_ptr<Request> intra;
    if (!is_empty(within)) {
      intra = intra_.post(std::move(within));
    }
    return std::make_unique<SplitRequest>(std::move(intra), std::move(inter));
  }

  int exchange(MessageGroup group) override {
    auto [within, between] = split(std::move(group));
    if (is_empty(within)) {
      return inter_.exchange(std::move(between));
    }
    if (is_empty(between)) {
      return intra_.exchange(std::move(within));
    }
    const auto intra = intra_.post(std::move(within));
    const int last_of_inter = inter_.exchange(std::move(between));
    const bool was_done = intra->done();
    intra->wait();
    return was_done ? last_of_inter : intra->last_peer();
  }

  void set_topology(const Topology& topology, std::vector<std::string> hosts) override {
    topology_ = topology;
    intra_.set_topology(topology, hosts);
    inter_.set_topology(topology, std::move(hosts));
  }
  void set_step(std::int64_t step) override {
    intra_.set_step(step);
    inter_.set_step(step);
  }
  void abort(std::string_view cause) noexcept override {
    intra_.abort(cause);
    inter_.abort(cause);
  }
  void finish() override {
    inter_.finish();
    intra_.finish();
  }
  void set_timeout(Seconds timeout) override {
    intra_.set_timeout(timeout);
    inter_.set_timeout(timeout);
  }

 private:
  struct Parts {
    MessageGroup within;
    MessageGroup between;
  };

  bool is_within(int peer) const {
    return topology_ && topology_->node(peer) == topology_->node(rank());
  }

  Parts split(MessageGroup group) const {
    Parts parts{.within = {group.phase, {}, {}}, .between = {group.phase, {}, {}}};
    for (const SendOp& send : group.sends) {
      (is_within(send.peer) ? parts.within : parts.between).sends.push_back(send);
    }
    for (const RecvOp& recv : group.recvs) {
      (is_within(recv.peer) ? parts.within : parts.between).recvs.push_back(recv);
    }
    return parts;
  }

  Transport& intra_;
  Transport& inter_;
  std::optional<Topology> topology_;
};

}  // namespace

std::unique_ptr<Transport> make_split_transport(Transport& intra, Transport& inter) {
  return std::make_unique<SplitTransport>(intra, inter);
}

}  // namespace cartesian
