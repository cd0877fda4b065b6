#include "runtime/train/coordinator_address.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <vector>

#include "base/error.h"

namespace cartesian {

namespace {

bool is_loopback(const std::string& address) {
  return address.starts_with("127.") || address == "::1" || address == "localhost";
}

[[noreturn]] void fail(const std::string& address, const std::string& root, const std::string& host,
                       const std::string& why) {
  throw ConfigError(
      fmt::format("scheduler.address = \"{}\": ranks on {} cannot reach rank 0 there{}; set it to "
                  "an address of {} that the other hosts reach",
                  address, host, why, root));
}

/// Of `root`, from elsewhere.
std::string looked_up(const std::string& address, const std::string& root, const std::string& host,
                      const Resolver& resolver) {
  std::vector<std::string> found;
  try {
    found = resolver(root);
  } catch (const std::exception& error) {
    fail(address, root, host,
         fmt::format(", since {} is not known there ({})", root, error.what()));
  }
  const auto usable = std::ranges::find_if(found, [&](const std::string& one) {
    const bool listened_to = address == "::" || one.find(':') == std::string::npos;
    return listened_to && !is_loopback(one);
  });
  if (usable == found.end()) {
    fail(address, root, host, fmt::format(", since {} has no other address there", root));
  }
  return *usable;
}

}  // namespace

bool is_every_address(const std::string& address) {
  return address == "0.0.0.0" || address == "::";
}

std::string coordinator_address(const std::string& address, const std::string& root,
                                const std::string& host, const Resolver& resolver) {
  if (host == root) {
    return address == "0.0.0.0" ? "127.0.0.1" : address == "::" ? "::1" : address;
  }
  if (is_loopback(address)) {
    fail(address, root, host, "");
  }
  return is_every_address(address) ? looked_up(address, root, host, resolver) : address;
}

}  // namespace cartesian
