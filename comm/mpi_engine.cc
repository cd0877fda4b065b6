#include "comm/mpi_engine.h"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <thread>

#include "base/check.h"
#include "base/error.h"
#include "comm/mpi_transport.h"

namespace cartesian {

namespace {

using std::chrono::steady_clock;

/// MPI counts are ints; longer messages travel in parts of this many bytes.
constexpr std::size_t kMaxPart = std::size_t{1} << 30;
constexpr int kDataTag = 1;
constexpr int kFailureTag = 2;
/// Last words are the failed rank's number and the cause, cut to this length.
constexpr std::size_t kMaxCause = 2000;
/// How long tell_failure() may take.
constexpr std::chrono::seconds kTellLimit{1};

std::string mpi_text(int code) {
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  return {text.data(), static_cast<std::size_t>(length)};
}

void require_success(int code, const char* call) {
  if (code != MPI_SUCCESS) {
    throw CommError(fmt::format("{} failed: {}", call, mpi_text(code)));
  }
}

/// Starts MPI if nobody has. Returns whether it did.
bool initialise_mpi() {
  int finalized = 0;
  int initialized = 0;
  require_success(MPI_Finalized(&finalized), "MPI_Finalized");
  require_success(MPI_Initialized(&initialized), "MPI_Initialized");
  if (finalized != 0) {
    throw CommError("MPI has been finalised in this process and cannot start again");
  }
  int provided = MPI_THREAD_SINGLE;
  if (initialized != 0) {
    require_success(MPI_Query_thread(&provided), "MPI_Query_thread");
  } else {
    require_success(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided),
                    "MPI_Init_thread");
  }
  if (provided < (initialized != 0 ? MPI_THREAD_MULTIPLE : MPI_THREAD_SERIALIZED)) {
    throw CommError("this MPI does not allow calls from several threads");
  }
  return initialized == 0;
}

MPI_Comm duplicate_world() {
  MPI_Comm copy = MPI_COMM_NULL;
  require_success(MPI_Comm_dup(MPI_COMM_WORLD, &copy), "MPI_Comm_dup");
  require_success(MPI_Comm_set_errhandler(copy, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return copy;
}

}  // namespace

struct MpiEngine::Mpi {
  bool initialised_here = initialise_mpi();
  MPI_Comm data = duplicate_world();
  MPI_Comm control = duplicate_world();
  std::vector<MPI_Request> requests;
  std::vector<int> completed;
  std::vector<MPI_Status> statuses;
};

MpiEngine::MpiEngine() : mpi_(std::make_unique<Mpi>()) {
  require_success(MPI_Comm_rank(mpi_->data, &site_.rank), "MPI_Comm_rank");
  require_success(MPI_Comm_size(mpi_->data, &size_), "MPI_Comm_size");
  site_.host = local_host_name();
}

MpiEngine::~MpiEngine() = default;

std::vector<int> MpiEngine::pending_peers(const MpiGroup& group) const {
  std::vector<int> peers;
  for (const Part& part : parts_) {
    if (part.group.get() == &group) {
      peers.push_back(part.peer);
    }
  }
  return peers;
}

void MpiEngine::start(const std::shared_ptr<MpiGroup>& group, const MessageGroup& messages) {
  for (const RecvOp& recv : messages.recvs) {
    check(recv.peer >= 0 && recv.peer < size_, "the sender of a message is a rank");
    for (std::size_t begin = 0; begin < recv.bytes.size(); begin += kMaxPart) {
      const auto bytes = recv.bytes.subspan(begin, std::min(kMaxPart, recv.bytes.size() - begin));
      mpi_->requests.push_back(MPI_REQUEST_NULL);
      started({group, recv.peer, true, bytes.size()},
              MPI_Irecv(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, recv.peer, kDataTag,
                        mpi_->data, &mpi_->requests.back()));
    }
  }
  for (const SendOp& send : messages.sends) {
    check(send.peer >= 0 && send.peer < size_, "the receiver of a message is a rank");
    for (std::size_t begin = 0; begin < send.bytes.size(); begin += kMaxPart) {
      const auto bytes = send.bytes.subspan(begin, std::min(kMaxPart, send.bytes.size() - begin));
      mpi_->requests.push_back(MPI_REQUEST_NULL);
      started({group, send.peer, false, bytes.size()},
              MPI_Isend(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, send.peer, kDataTag,
                        mpi_->data, &mpi_->requests.back()));
    }
  }
  if (group->pending == 0) {
    group->done.store(true, std::memory_order_release);
  }
}

void MpiEngine::started(Part part, int code) {
  ++part.group->pending;
  if (code == MPI_SUCCESS) {
    parts_.push_back(std::move(part));
    return;
  }
  mpi_->requests.pop_back();
  part.group->error = mpi_error(part, code);
  part.group->done.store(true, std::memory_order_release);
}

bool MpiEngine::progress() {
  if (mpi_->requests.empty()) {
    return false;
  }
  mpi_->completed.resize(mpi_->requests.size());
  mpi_->statuses.resize(mpi_->requests.size());
  int count = 0;
  const int code = MPI_Testsome(static_cast<int>(mpi_->requests.size()), mpi_->requests.data(),
                                &count, mpi_->completed.data(), mpi_->statuses.data());
  check(code == MPI_SUCCESS || code == MPI_ERR_IN_STATUS, "MPI_Testsome failed");
  if (count == MPI_UNDEFINED || count <= 0) {
    return false;
  }
  const auto ready = std::span(mpi_->completed).first(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < ready.size(); ++i) {
    const Part& part = parts_[static_cast<std::size_t>(ready[i])];
    MpiGroup& group = *part.group;
    if (group.error.empty()) {  // once done, `error` may be read without the mutex
      group.error = error_of(part, i, code);
    }
    if (part.peer != site_.rank) {
      group.last_peer = part.peer;
    }
    if (--group.pending == 0 || !group.error.empty()) {
      group.done.store(true, std::memory_order_release);
    }
  }
  // From the back, so that what is moved into a gap is never itself complete.
  std::sort(ready.begin(), ready.end(), std::greater<>());
  for (const int index : ready) {
    const auto i = static_cast<std::size_t>(index);
    mpi_->requests[i] = mpi_->requests.back();
    mpi_->requests.pop_back();
    if (i + 1 < parts_.size()) {
      parts_[i] = std::move(parts_.back());
    }
    parts_.pop_back();
  }
  return true;
}

std::string MpiEngine::error_of(const Part& part, std::size_t completed, int code) const {
  const MPI_Status& status = mpi_->statuses[completed];
  const int error = code == MPI_SUCCESS ? MPI_SUCCESS : status.MPI_ERROR;
  if (error != MPI_SUCCESS) {
    return mpi_error(part, error);
  }
  if (!part.is_recv) {
    return {};
  }
  int received = 0;
  MPI_Get_count(&status, MPI_BYTE, &received);
  const auto bytes = static_cast<std::size_t>(received);
  return bytes == part.bytes ? std::string()
                             : size_message(site_, part.peer, bytes, part.bytes, part.group->phase);
}

std::string MpiEngine::mpi_error(const Part& part, int code) const {
  if (code == MPI_ERR_TRUNCATE) {
    return size_message(site_, part.peer, std::nullopt, part.bytes, part.group->phase);
  }
  return fmt::format("rank {} ({}): MPI reported for rank {} in {}: {}", site_.rank, site_.host,
                     part.peer, describe(part.group->phase, site_), mpi_text(code));
}

void MpiEngine::poll_failures(steady_clock::time_point now, steady_clock::duration interval) {
  if (failure_ || now - last_failure_poll_ < interval) {
    return;
  }
  last_failure_poll_ = now;
  receive_failure();
}

bool MpiEngine::receive_failure() {
  int found = 0;
  MPI_Status status;
  if (MPI_Iprobe(MPI_ANY_SOURCE, kFailureTag, mpi_->control, &found, &status) != MPI_SUCCESS ||
      found == 0) {
    return false;
  }
  int length = 0;
  MPI_Get_count(&status, MPI_BYTE, &length);
  std::string message(static_cast<std::size_t>(length), '\0');
  std::int32_t rank = status.MPI_SOURCE;
  if (MPI_Recv(message.data(), length, MPI_BYTE, status.MPI_SOURCE, kFailureTag, mpi_->control,
               MPI_STATUS_IGNORE) != MPI_SUCCESS) {
    return false;
  }
  ++heard_;
  if (!failure_ && message.size() >= sizeof(rank)) {
    std::memcpy(&rank, message.data(), sizeof(rank));
    failure_ = RankFailure{rank, message.substr(sizeof(rank))};
  }
  return true;
}

void MpiEngine::abandon(const MpiGroup& group) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].group.get() == &group) {
      if (parts_[i].is_recv) {
        MPI_Cancel(&mpi_->requests[i]);
      }
      MPI_Request_free(&mpi_->requests[i]);
      continue;
    }
    if (kept != i) {
      parts_[kept] = std::move(parts_[i]);
      mpi_->requests[kept] = mpi_->requests[i];
    }
    ++kept;
  }
  parts_.resize(kept);
  mpi_->requests.resize(kept);
}

void MpiEngine::tell_failure(std::string_view cause) {
  if (!failure_) {
    failure_ = RankFailure{site_.rank, std::string(cause.substr(0, kMaxCause))};
  }
  const auto rank = static_cast<std::int32_t>(failure_->rank);
  auto message = std::make_unique<std::string>(sizeof(rank), '\0');
  std::memcpy(message->data(), &rank, sizeof(rank));
  *message += failure_->cause;
  std::vector<MPI_Request> sends;
  for (int peer = 0; peer < size_; ++peer) {
    MPI_Request request = MPI_REQUEST_NULL;
    if (peer != site_.rank &&
        MPI_Isend(message->data(), static_cast<int>(message->size()), MPI_BYTE, peer, kFailureTag,
                  mpi_->control, &request) == MPI_SUCCESS) {
      sends.push_back(request);
    }
  }
  // A process that ends with unread data in a TCP connection resets it, and what it had sent last
  // may be lost: so it goes on reading until the others have had their say, too.
  const auto deadline = steady_clock::now() + kTellLimit;
  int all_sent = 0;
  while ((all_sent == 0 || heard_ < size_ - 1) && steady_clock::now() < deadline) {
    MPI_Testall(static_cast<int>(sends.size()), sends.data(), &all_sent, MPI_STATUSES_IGNORE);
    progress();
    if (!receive_failure()) {
      std::this_thread::yield();
    }
  }
  if (all_sent == 0) {
    // MPI may still read it: leaked on purpose, the process is ending.
    static_cast<void>(message.release());
  }
}

void MpiEngine::finalise() {
  MPI_Comm_free(&mpi_->data);
  MPI_Comm_free(&mpi_->control);
  if (mpi_->initialised_here) {
    MPI_Finalize();
  }
}

std::string mpi_library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string_view all(text.data(), static_cast<std::size_t>(length));
  return std::string(all.substr(0, all.find_first_of("\n,")));
}

}  // namespace cartesian
