#include "comm/ucx_engine.h"

#include <fmt/format.h>
#include <ucp/api/ucp.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>

#include "base/check.h"
#include "base/error.h"

namespace cartesian {

namespace {

using std::chrono::steady_clock;

/// How long tell_failure(), settle() and close() may take.
constexpr std::chrono::seconds kPatience{1};
/// Last words are an active message.
constexpr unsigned kLastWordsId = 1;
constexpr std::size_t kMaxCause = 2000;
struct LastWords {
  std::array<std::int32_t, 2> ranks{};  ///< its header: who speaks, who failed first
  std::string cause;                    ///< cut to kMaxCause bytes
};

/// A tag names the sender and the message's number among those of the pair, so that the i-th send
/// meets the i-th receive whatever overtakes what on the way. Numbers may wrap.
constexpr int kNumberBits = 40;
constexpr std::uint64_t kMaxRanks = std::uint64_t{1} << (64 - kNumberBits);
ucp_tag_t tag_of(int sender, std::uint64_t number) {
  return static_cast<std::uint64_t>(sender) << kNumberBits |
         (number & ((std::uint64_t{1} << kNumberBits) - 1));
}
constexpr ucp_tag_t kWholeTag = ~ucp_tag_t{0};

/// What a rank contributes to the bootstrap: its address, or why it has none.
constexpr char kHasAddress = '+';
constexpr char kHasFailed = '-';

}  // namespace

struct UcxEngine::Callbacks {
  static void sent(void* request, ucs_status_t status, void* message) {
    ended(request, status, message, 0);
  }
  static void received(void* request, ucs_status_t status, const ucp_tag_recv_info_t* info,
                       void* message) {
    ended(request, status, message, info->length);
  }
  static void ended(void* request, ucs_status_t status, void* message, std::size_t received) {
    auto& ours = *static_cast<Message*>(message);
    ucp_request_free(request);
    if (ours.request == nullptr) {
      ours.ended = Ended{status, received};
    } else {
      ours.engine->complete(ours, {status, received});
    }
  }
  static void told(void* request, ucs_status_t, void* words) {
    delete static_cast<LastWords*>(words);
    ucp_request_free(request);
  }
  static void broken(void* peer, ucp_ep_h, ucs_status_t status) {
    auto& ours = *static_cast<Peer*>(peer);
    ours.engine->lose(ours, status);
  }
  static ucs_status_t last_words(void* engine, const void* header, std::size_t header_length,
                                 void* data, std::size_t length, const ucp_am_recv_param_t* param) {
    auto& ours = *static_cast<UcxEngine*>(engine);
    std::array<std::int32_t, 2> ranks{};
    if (header_length != sizeof(ranks) || (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) {
      return UCS_OK;
    }
    std::memcpy(ranks.data(), header, sizeof(ranks));
    const auto is_rank = [&ours](std::int32_t rank) { return rank >= 0 && rank < ours.size(); };
    if (std::all_of(ranks.begin(), ranks.end(), is_rank)) {
      ours.peer(ranks[0]).told = true;
      ours.fail({ranks[1], std::string(static_cast<const char*>(data), length)});
    }
    return UCS_OK;
  }
};

UcxEngine::UcxEngine(Bootstrap& bootstrap, Seconds timeout) {
  site_.rank = bootstrap.rank();
  site_.host = local_host_name();
  check(static_cast<std::uint64_t>(bootstrap.size()) <= kMaxRanks, "a tag has room for every rank");
  std::string mine;
  try {
    worker_ = std::make_unique<UcxWorker>();
    mine = kHasAddress + worker_->address();
  } catch (const CommError& error) {
    mine = fmt::format("{}rank {} ({}): {}", kHasFailed, site_.rank, site_.host, error.what());
  }
  const std::vector<std::string> all = bootstrap.all_gather(mine, timeout);
  peers_.resize(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].front() == kHasFailed) {
      throw CommError(all[i].substr(1));
    }
    peers_[i].engine = this;
    peers_[i].rank = static_cast<int>(i);
    peers_[i].address = all[i].substr(1);
  }
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = kLastWordsId;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.cb = Callbacks::last_words;
  handler.arg = this;
  check(ucp_worker_set_am_recv_handler(worker_->get(), &handler) == UCS_OK,
        "UCP takes a handler of active messages");
}

UcxEngine::~UcxEngine() { close(false); }

ucp_ep* UcxEngine::endpoint(Peer& peer) {
  if (peer.endpoint != nullptr || peer.lost) {
    return peer.endpoint;
  }
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(peer.address.data());
  // Only with this does UCP tell of a dead peer instead of trying for ever. One's own memory needs
  // no such care and has a quicker way without.
  params.err_mode =
      peer.rank == site_.rank ? UCP_ERR_HANDLING_MODE_NONE : UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = Callbacks::broken;
  params.err_handler.arg = &peer;
  const ucs_status_t status = ucp_ep_create(worker_->get(), &params, &peer.endpoint);
  if (status != UCS_OK) {
    peer.endpoint = nullptr;
    lose(peer, status);
  }
  return peer.endpoint;
}

std::vector<int> UcxEngine::pending_peers(const UcxGroup& group) const {
  std::vector<int> peers;
  for (const Message& message : in_flight_) {
    if (message.group.get() == &group) {
      peers.push_back(message.peer);
    }
  }
  return peers;
}

void UcxEngine::start(const std::shared_ptr<UcxGroup>& group, const MessageGroup& messages) {
  group->pending = 1;  // this call's own, so that nothing it starts ends the group
  for (const RecvOp& recv : messages.recvs) {
    check(recv.peer >= 0 && recv.peer < size(), "the sender of a message is a rank");
    if (!recv.bytes.empty()) {
      start_recv(group, recv);
    }
  }
  for (const SendOp& send : messages.sends) {
    check(send.peer >= 0 && send.peer < size(), "the receiver of a message is a rank");
    if (!send.bytes.empty()) {
      start_send(group, send);
    }
  }
  if (--group->pending == 0) {
    group->done.store(true, std::memory_order_release);
  }
}

UcxEngine::Message& UcxEngine::add(const std::shared_ptr<UcxGroup>& group, int peer, bool is_recv,
                                   std::size_t bytes) {
  ++group->pending;
  Message& message = in_flight_.emplace_back();
  message.engine = this;
  message.group = group;
  message.peer = peer;
  message.is_recv = is_recv;
  message.bytes = bytes;
  message.self = std::prev(in_flight_.end());
  return message;
}

void UcxEngine::start_recv(const std::shared_ptr<UcxGroup>& group, const RecvOp& recv) {
  Peer& from = peer(recv.peer);
  Message& message = add(group, recv.peer, true, recv.bytes.size());
  // Not needed to receive, but without one nobody would tell that the peer died.
  endpoint(from);
  ucp_request_param_t param{};
  // UCX 1.13 does not tell the size of what it receives at once, except to the callback.
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
  param.cb.recv = Callbacks::received;
  param.user_data = &message;
  started(message, ucp_tag_recv_nbx(worker_->get(), recv.bytes.data(), recv.bytes.size(),
                                    tag_of(recv.peer, from.recvs++), kWholeTag, &param));
}

void UcxEngine::start_send(const std::shared_ptr<UcxGroup>& group, const SendOp& send) {
  Peer& to = peer(send.peer);
  Message& message = add(group, send.peer, false, send.bytes.size());
  ucp_ep* const way = endpoint(to);
  if (way == nullptr) {
    complete(message, {UCS_ERR_UNREACHABLE, 0});
    return;
  }
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  param.cb.send = Callbacks::sent;
  param.user_data = &message;
  started(message, ucp_tag_send_nbx(way, send.bytes.data(), send.bytes.size(),
                                    tag_of(site_.rank, to.sends++), &param));
}

void UcxEngine::started(Message& message, void* request) {
  if (!UCS_PTR_IS_PTR(request)) {
    message.ended = Ended{UCS_PTR_RAW_STATUS(request), 0};
  }
  if (message.ended) {
    complete(message, *message.ended);
  } else {
    message.request = request;
  }
}

void UcxEngine::complete(Message& message, Ended ended) {
  UcxGroup& group = *message.group;
  if (group.error.empty()) {  // once done, `error` may be read without the mutex
    group.error = error_of(message, ended);
  }
  if (message.peer != site_.rank) {
    group.last_peer = message.peer;
  }
  if (--group.pending == 0 || !group.error.empty()) {
    group.done.store(true, std::memory_order_release);
  }
  in_flight_.erase(message.self);
}

std::string UcxEngine::error_of(const Message& message, Ended ended) {
  const auto status = static_cast<ucs_status_t>(ended.status);
  const CommPhase& phase = message.group->phase;
  if (status == UCS_ERR_MESSAGE_TRUNCATED) {
    return size_message(site_, message.peer, std::nullopt, message.bytes, phase);
  }
  if (status == UCS_OK) {
    return message.is_recv && ended.received != message.bytes
               ? size_message(site_, message.peer, ended.received, message.bytes, phase)
               : std::string();
  }
  if (status != UCS_ERR_CANCELED) {
    lose(peer(message.peer), status);
  }
  const RankFailure failure =
      failure_.value_or(RankFailure{message.peer, ucs_status_string(status)});
  return failure_message(site_, failure, pending_peers(*message.group), phase);
}

void UcxEngine::lose(Peer& peer, int status) {
  peer.lost = true;
  if (!goodbyes_) {
    fail({peer.rank, fmt::format("its connection broke: {}",
                                 ucs_status_string(static_cast<ucs_status_t>(status)))});
  }
}

void UcxEngine::fail(RankFailure failure) {
  if (!failure_) {
    failure_ = std::move(failure);
    failed_.store(true, std::memory_order_release);
  }
}

void UcxEngine::cancel_receives(const UcxGroup* group) {
  std::vector<void*> requests;  // first all, because cancelling ends them and changes the list
  for (const Message& message : in_flight_) {
    if (message.is_recv && (group == nullptr || message.group.get() == group)) {
      requests.push_back(message.request);
    }
  }
  for (void* request : requests) {
    ucp_request_cancel(worker_->get(), request);
  }
}

void UcxEngine::abandon(const UcxGroup& group) { cancel_receives(&group); }

bool UcxEngine::all_others_told() const {
  return std::all_of(peers_.begin(), peers_.end(), [this](const Peer& peer) {
    return peer.told || peer.lost || peer.rank == site_.rank;
  });
}

void UcxEngine::tell_failure(std::string_view cause) {
  fail({site_.rank, std::string(cause.substr(0, kMaxCause))});
  for (Peer& peer : peers_) {
    ucp_ep* const way = peer.rank == site_.rank ? nullptr : endpoint(peer);
    if (way == nullptr) {
      continue;
    }
    auto words = std::make_unique<LastWords>(
        LastWords{{site_.rank, failure_->rank}, failure_->cause.substr(0, kMaxCause)});
    ucp_request_param_t param{};
    param.op_attr_mask =
        UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_AM_SEND_FLAG_EAGER;
    param.cb.send = Callbacks::told;
    param.user_data = words.get();
    void* request = ucp_am_send_nbx(way, kLastWordsId, words->ranks.data(), sizeof(words->ranks),
                                    words->cause.data(), words->cause.size(), &param);
    if (UCS_PTR_IS_PTR(request)) {
      static_cast<void>(words.release());  // Callbacks::told gives it back
    }
  }
  worker_->progress_until([this] { return all_others_told(); }, steady_clock::now() + kPatience);
}

void UcxEngine::wait_for(const std::vector<void*>& requests, bool drain) {
  const auto ended = [&] {
    return (!drain || in_flight_.empty()) &&
           std::all_of(requests.begin(), requests.end(), [](void* request) {
             return ucp_request_check_status(request) != UCS_INPROGRESS;
           });
  };
  worker_->progress_until(ended, steady_clock::now() + kPatience);
  std::for_each(requests.begin(), requests.end(), ucp_request_free);
}

void UcxEngine::settle() {
  std::vector<void*> flushing;
  for (const Peer& peer : peers_) {
    if (peer.endpoint != nullptr && !peer.lost) {
      const ucp_request_param_t param{};
      void* request = ucp_ep_flush_nbx(peer.endpoint, &param);
      if (UCS_PTR_IS_PTR(request)) {
        flushing.push_back(request);
      }
    }
  }
  wait_for(flushing, /*drain=*/false);
}

void UcxEngine::close(bool in_order) {
  if (worker_ == nullptr) {
    return;
  }
  goodbyes_ = true;
  cancel_receives(nullptr);
  std::vector<void*> closing;
  for (Peer& peer : peers_) {
    if (peer.endpoint == nullptr) {
      continue;
    }
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    // UCP forces only what it guards against dead peers.
    const bool flush = (in_order && !peer.lost) || peer.rank == site_.rank;
    param.flags = flush ? 0U : static_cast<unsigned>(UCP_EP_CLOSE_FLAG_FORCE);
    void* request = ucp_ep_close_nbx(peer.endpoint, &param);
    if (UCS_PTR_IS_PTR(request)) {
      closing.push_back(request);
    }
    peer.endpoint = nullptr;
    peer.lost = true;
  }
  wait_for(closing, /*drain=*/true);
  worker_.reset();
  in_flight_.clear();
}

}  // namespace cartesian
