#pragma once
// HostLookup: the numeric addresses of a host's name, looked up on a thread of its own. The
// system's resolver has no deadline and cannot be interrupted, so that thread is left behind by who
// does not wait for it.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace cartesian {

/// What a look-up found, or why it found nothing.
struct HostAddresses {
  std::vector<std::string> numeric;
  std::string trouble;
};

/// May wait for long. Throws what derives from std::exception if it finds nothing.
using Resolver = std::function<std::vector<std::string>(const std::string& host)>;
/// The system's.
std::vector<std::string> resolve_host(const std::string& host);

/// Not thread-safe. Neither the constructor nor the destructor waits for the look-up.
class HostLookup {
 public:
  HostLookup(std::string host, Resolver resolver);
  /// Nothing while it goes on.
  std::optional<HostAddresses> result() const;

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace cartesian
