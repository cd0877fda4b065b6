#include "comm/local_transport.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "base/check.h"
#include "base/error.h"
#include "comm/collectives.h"
#include "comm/comm_error.h"
#include "comm/deadline.h"
#include "comm/traffic_counter.h"

namespace cartesian {

namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

/// A posted group. The fields that change are guarded by the mutex of the rank that posted it.
struct PostedGroup {
  int rank = 0;
  CommPhase phase;
  std::vector<int> pending_peers;  ///< one entry a message that is not done
  int last_peer = -1;              ///< other rank of the message that was done last
  std::string error;
};

/// One side of a message that has not met its other side yet.
struct HalfMessage {
  std::shared_ptr<PostedGroup> group;
  std::span<const std::byte> source;  ///< set in sends
  std::span<std::byte> target;        ///< set in receives
};

/// What waits between one sender and one receiver. At most one of the queues is not empty, unless a
/// message was taken back: then nothing matches any more, since nobody knows what belongs together.
struct Channel {
  std::mutex mutex;
  std::deque<HalfMessage> sends;  // guarded by mutex
  std::deque<HalfMessage> recvs;  // guarded by mutex
  bool broken = false;            // guarded by mutex
};

struct RankState {
  std::mutex mutex;
  std::condition_variable changed;
  Seconds timeout{};                   // guarded by mutex
  CommSite site;                       // guarded by mutex, but for rank and host
  std::optional<RankFailure> failure;  // guarded by mutex; the first that was told
};

/// Shared by all ranks. Locks are taken in the order channel, rank; never two of a kind.
class Mailbox {
 public:
  Mailbox(int size, Seconds timeout)
      : size_(size),
        host_(local_host_name()),
        channels_(static_cast<std::size_t>(size) * static_cast<std::size_t>(size)),
        ranks_(static_cast<std::size_t>(size)) {
    for (int i = 0; i < size; ++i) {
      rank(i).timeout = timeout;
      rank(i).site = {.rank = i, .host = host_, .hosts = {}};
    }
  }

  int size() const { return size_; }
  const std::string& host() const { return host_; }
  RankState& rank(int rank) { return ranks_[static_cast<std::size_t>(rank)]; }

  std::shared_ptr<PostedGroup> post(int rank, const MessageGroup& group);
  void wait(const std::shared_ptr<PostedGroup>& group);
  bool done(const PostedGroup& group);
  /// Takes a group's unmatched messages back: afterwards nobody touches their memory.
  void withdraw(const std::shared_ptr<PostedGroup>& group);
  void fail(int failed_rank, std::string_view cause);
  void set_timeout(int rank, Seconds timeout);
  void set_hosts(int rank, std::vector<std::string> hosts);
  void set_step(int rank, std::int64_t step);

 private:
  Channel& channel(int from, int to) {
    return channels_[static_cast<std::size_t>(from) * static_cast<std::size_t>(size_) +
                     static_cast<std::size_t>(to)];
  }
  void deliver(const HalfMessage& send, const HalfMessage& recv);
  void complete(PostedGroup& group, int peer, std::string error);

  int size_;
  std::string host_;
  std::vector<Channel> channels_;
  std::vector<RankState> ranks_;
};

std::shared_ptr<PostedGroup> Mailbox::post(int rank, const MessageGroup& group) {
  auto posted = std::make_shared<PostedGroup>(PostedGroup{rank, group.phase, {}, -1, {}});
  for (const SendOp& send : group.sends) {
    check(send.peer >= 0 && send.peer < size_, "the receiver of a message is a rank");
    if (!send.bytes.empty()) {
      posted->pending_peers.push_back(send.peer);
    }
  }
  for (const RecvOp& recv : group.recvs) {
    check(recv.peer >= 0 && recv.peer < size_, "the sender of a message is a rank");
    if (!recv.bytes.empty()) {
      posted->pending_peers.push_back(recv.peer);
    }
  }
  // Whoever comes second copies, under the channel's lock, so that withdraw() cannot pull the
  // memory away meanwhile.
  for (const RecvOp& recv : group.recvs) {
    if (recv.bytes.empty()) {
      continue;
    }
    Channel& from = channel(recv.peer, rank);
    const std::lock_guard lock(from.mutex);
    const HalfMessage half{posted, {}, recv.bytes};
    if (from.sends.empty() || from.broken) {
      from.recvs.push_back(half);
    } else {
      deliver(from.sends.front(), half);
      from.sends.pop_front();
    }
  }
  for (const SendOp& send : group.sends) {
    if (send.bytes.empty()) {
      continue;
    }
    Channel& to = channel(rank, send.peer);
    const std::lock_guard lock(to.mutex);
    const HalfMessage half{posted, send.bytes, {}};
    if (to.recvs.empty() || to.broken) {
      to.sends.push_back(half);
    } else {
      deliver(half, to.recvs.front());
      to.recvs.pop_front();
    }
  }
  return posted;
}

void Mailbox::deliver(const HalfMessage& send, const HalfMessage& recv) {
  const int sender = send.group->rank;
  const int receiver = recv.group->rank;
  std::string error;
  if (send.source.size() == recv.target.size()) {
    std::memcpy(recv.target.data(), send.source.data(), send.source.size());
  } else {
    RankState& state = rank(receiver);
    const std::lock_guard lock(state.mutex);
    error =
        size_message(state.site, sender, send.source.size(), recv.target.size(), recv.group->phase);
  }
  complete(*send.group, receiver, error);
  complete(*recv.group, sender, error);
}

void Mailbox::complete(PostedGroup& group, int peer, std::string error) {
  RankState& state = rank(group.rank);
  const std::lock_guard lock(state.mutex);
  auto& pending = group.pending_peers;
  pending.erase(std::find(pending.begin(), pending.end(), peer));
  group.last_peer = peer == group.rank ? group.last_peer : peer;
  if (!error.empty()) {
    group.error = std::move(error);
  }
  if (pending.empty() || !group.error.empty()) {
    state.changed.notify_all();
  }
}

bool Mailbox::done(const PostedGroup& group) {
  RankState& state = rank(group.rank);
  const std::lock_guard lock(state.mutex);
  return group.pending_peers.empty() || !group.error.empty() || state.failure.has_value();
}

void Mailbox::wait(const std::shared_ptr<PostedGroup>& group) {
  const auto start = std::chrono::steady_clock::now();
  RankState& state = rank(group->rank);
  std::unique_lock lock(state.mutex);
  std::string error;
  while (true) {
    const SteadyTime deadline = deadline_after(start, state.timeout);
    if (!group->error.empty()) {
      error = group->error;
    } else if (group->pending_peers.empty()) {
      return;
    } else if (state.failure) {
      error = failure_message(state.site, *state.failure, group->pending_peers, group->phase);
    } else if (std::chrono::steady_clock::now() >= deadline) {
      error = deadline_message(state.site, group->pending_peers, state.timeout, group->phase);
    }
    if (!error.empty()) {
      break;
    }
    state.changed.wait_until(lock, deadline);
  }
  lock.unlock();
  withdraw(group);
  throw CommError(error);
}

void Mailbox::withdraw(const std::shared_ptr<PostedGroup>& group) {
  std::vector<int> peers;
  {
    const std::lock_guard lock(rank(group->rank).mutex);
    peers = group->pending_peers;
  }
  const auto take_back = [&group](Channel& channel) {
    const std::lock_guard lock(channel.mutex);
    const auto ours = [&group](const HalfMessage& half) { return half.group == group; };
    const auto taken = std::erase_if(channel.sends, ours) + std::erase_if(channel.recvs, ours);
    channel.broken = channel.broken || taken > 0;
  };
  for (const int peer : peers) {
    take_back(channel(group->rank, peer));
    take_back(channel(peer, group->rank));
  }
}

void Mailbox::fail(int failed_rank, std::string_view cause) {
  for (RankState& state : ranks_) {
    const std::lock_guard lock(state.mutex);
    if (!state.failure) {
      state.failure = RankFailure{failed_rank, std::string(cause)};
    }
    state.changed.notify_all();
  }
}

void Mailbox::set_timeout(int rank_index, Seconds timeout) {
  RankState& state = rank(rank_index);
  const std::lock_guard lock(state.mutex);
  state.timeout = timeout;
  state.changed.notify_all();
}

void Mailbox::set_hosts(int rank_index, std::vector<std::string> hosts) {
  RankState& state = rank(rank_index);
  const std::lock_guard lock(state.mutex);
  state.site.hosts = std::move(hosts);
}

void Mailbox::set_step(int rank_index, std::int64_t step) {
  RankState& state = rank(rank_index);
  const std::lock_guard lock(state.mutex);
  state.site.step = step;
}

class LocalRequest final : public Request {
 public:
  LocalRequest(std::shared_ptr<Mailbox> mailbox, std::shared_ptr<PostedGroup> group)
      : mailbox_(std::move(mailbox)), group_(std::move(group)) {}
  ~LocalRequest() override { mailbox_->withdraw(group_); }

  bool done() override { return mailbox_->done(*group_); }
  void wait() override { mailbox_->wait(group_); }
  int last_peer() const override { return group_->last_peer; }

 private:
  std::shared_ptr<Mailbox> mailbox_;
  std::shared_ptr<PostedGroup> group_;
};

class LocalTransport final : public Transport {
 public:
  LocalTransport(std::shared_ptr<Mailbox> mailbox, int rank, const TransportOptions& options)
      : mailbox_(std::move(mailbox)),
        rank_(rank),
        traffic_(options.metrics, rank, mailbox_->size()) {}
  ~LocalTransport() override {
    if (!finished_) {
      abort("it ended without finishing");
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return mailbox_->size(); }
  std::string host() const override { return mailbox_->host(); }

  std::unique_ptr<Request> post(MessageGroup group) override {
    for (const SendOp& send : group.sends) {
      if (!send.bytes.empty()) {
        traffic_.count(send.peer, send.bytes.size());
      }
    }
    return std::make_unique<LocalRequest>(mailbox_, mailbox_->post(rank_, group));
  }
  void set_topology(const Topology& topology, std::vector<std::string> hosts) override {
    traffic_.set_topology(topology);
    mailbox_->set_hosts(rank_, std::move(hosts));
  }
  void set_step(std::int64_t step) override { mailbox_->set_step(rank_, step); }
  void abort(std::string_view cause) noexcept override {
    try {
      mailbox_->fail(rank_, cause);
    } catch (const std::exception&) {
      // Out of memory for the text: the others' deadlines remain.
    }
  }
  void finish() override {
    if (!finished_) {
      barrier(*this, {"finish"});
      finished_ = true;
    }
  }
  void set_timeout(Seconds timeout) override { mailbox_->set_timeout(rank_, timeout); }

 private:
  std::shared_ptr<Mailbox> mailbox_;
  int rank_;
  TrafficCounter traffic_;
  bool finished_ = false;
};

/// Keeps the exception that came first. Thread-safe.
class FirstException {
 public:
  void keep(std::exception_ptr thrown) {
    const std::lock_guard lock(mutex_);
    if (!first_) {
      first_ = std::move(thrown);
    }
  }
  void rethrow_if_any() const {
    const std::lock_guard lock(mutex_);
    if (first_) {
      std::rethrow_exception(first_);
    }
  }

 private:
  mutable std::mutex mutex_;
  std::exception_ptr first_;  // guarded by mutex_
};

/// Runs one rank. What it throws is kept before the others are told, so that none of the exceptions
/// this causes can be first.
void run_rank(Transport& transport, const std::function<void(Transport&)>& body,
              FirstException& first) {
  try {
    body(transport);
    transport.finish();
  } catch (const std::exception& error) {
    first.keep(std::current_exception());
    transport.abort(error.what());
  } catch (...) {
    first.keep(std::current_exception());
    transport.abort("unknown exception");
  }
}

}  // namespace

std::vector<std::unique_ptr<Transport>> make_local_transports(int size,
                                                              const TransportOptions& options) {
  check(size >= 1, "a job has at least one rank");
  auto mailbox = std::make_shared<Mailbox>(size, options.timeout);
  std::vector<std::unique_ptr<Transport>> transports;
  for (int rank = 0; rank < size; ++rank) {
    transports.push_back(std::make_unique<LocalTransport>(mailbox, rank, options));
  }
  return transports;
}

void run_local_ranks(int size, const std::function<void(Transport&)>& body,
                     const TransportOptions& options) {
  auto transports = make_local_transports(size, options);
  FirstException first;
  std::vector<std::thread> threads;
  for (auto& transport : transports) {
    threads.emplace_back([&first, &body, &transport] { run_rank(*transport, body, first); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  first.rethrow_if_any();
}

}  // namespace cartesian
