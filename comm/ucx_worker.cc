#include "comm/ucx_worker.h"

#include <fmt/format.h>
#include <poll.h>
#include <ucp/api/ucp.h>

#include <algorithm>
#include <array>
#include <limits>

#include "base/error.h"
#include "comm/ucx_transport.h"

namespace cartesian {

namespace {

using std::chrono::steady_clock;

/// A worker that has something to do but does not get on with it is looked at this often.
constexpr std::chrono::milliseconds kBusyPause{1};

void require_success(ucs_status_t status, const char* call) {
  if (status != UCS_OK) {
    throw CommError(fmt::format("{} failed: {}", call, ucs_status_string(status)));
  }
}

ucp_context_h make_context() {
  ucp_config_t* config = nullptr;
  require_success(ucp_config_read(nullptr, nullptr, &config), "ucp_config_read");
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_TAG | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  ucp_context_h context = nullptr;
  const ucs_status_t status = ucp_init(&params, config, &context);
  ucp_config_release(config);
  require_success(status, "ucp_init");
  return context;
}

}  // namespace

UcxWorker::UcxWorker() : context_(make_context()) {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE | UCP_WORKER_PARAM_FIELD_FLAGS;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  // A failed job leaves requests behind; it has said so already.
  params.flags = UCP_WORKER_FLAG_IGNORE_REQUEST_LEAK;
  ucs_status_t status = ucp_worker_create(context_, &params, &worker_);
  if (status == UCS_OK) {
    status = ucp_worker_get_efd(worker_, &event_fd_);
    if (status != UCS_OK) {
      ucp_worker_destroy(worker_);
    }
  }
  if (status != UCS_OK) {
    ucp_cleanup(context_);
    require_success(status, "making a UCP worker");
  }
}

UcxWorker::~UcxWorker() {
  ucp_worker_destroy(worker_);
  ucp_cleanup(context_);
}

std::string UcxWorker::address() const {
  ucp_address_t* address = nullptr;
  std::size_t length = 0;
  require_success(ucp_worker_get_address(worker_, &address, &length), "ucp_worker_get_address");
  std::string copy(reinterpret_cast<const char*>(address), length);
  ucp_worker_release_address(worker_, address);
  return copy;
}

bool UcxWorker::progress() { return ucp_worker_progress(worker_) != 0; }

bool UcxWorker::arm() { return ucp_worker_arm(worker_) == UCS_OK; }

void UcxWorker::signal() { ucp_worker_signal(worker_); }

bool UcxWorker::progress_until(const std::function<bool()>& done, TimePoint deadline) {
  while (!done()) {
    const auto now = steady_clock::now();
    if (now >= deadline) {
      return false;
    }
    if (!progress()) {
      const bool armed = arm();
      sleep_on(armed ? event_fd_ : -1, -1, armed ? deadline : std::min(deadline, now + kBusyPause));
    }
  }
  return true;
}

void sleep_on(int fd, int other_fd, UcxWorker::TimePoint deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now()).count();
  std::array<pollfd, 2> waiting{{{fd, POLLIN, 0}, {other_fd, POLLIN, 0}}};  // negative: ignored
  poll(waiting.data(), waiting.size(),
       static_cast<int>(std::clamp<std::int64_t>(left, 0, std::numeric_limits<int>::max())));
}

bool ucx_available() { return true; }

std::string ucx_library() { return fmt::format("UCX {}", ucp_get_version_string()); }

}  // namespace cartesian
