#include "scheduler/host_lookup.h"

#include <mutex>
#include <thread>
#include <utility>

#include "scheduler/asio_internal.h"

namespace cartesian {

std::vector<std::string> resolve_host(const std::string& host) {
  asio::io_context io;
  tcp::resolver resolver(io);
  std::vector<std::string> addresses;
  for (const auto& entry : resolver.resolve(host, "")) {
    addresses.push_back(entry.endpoint().address().to_string());
  }
  return addresses;
}

struct HostLookup::Shared {
  std::mutex mutex;
  std::optional<HostAddresses> result;  // guarded by mutex
};

HostLookup::HostLookup(std::string host, Resolver resolver) : shared_(std::make_shared<Shared>()) {
  // The thread owns all that it touches.
  std::thread([shared = shared_, host = std::move(host), resolver = std::move(resolver)] {
    HostAddresses found;
    try {
      found.numeric = resolver(host);
    } catch (const std::exception& error) {
      found.trouble = error.what();
    }
    const std::lock_guard lock(shared->mutex);
    shared->result = std::move(found);
  }).detach();
}

std::optional<HostAddresses> HostLookup::result() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->result;
}

}  // namespace cartesian
