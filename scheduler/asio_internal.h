#pragma once
// Boost.Asio as the control plane and its clients use it. Not a public header.

// Boost 1.74 uses std::exchange without including it, and does not know that clang has coroutines.
#ifndef BOOST_ASIO_HAS_CO_AWAIT
#define BOOST_ASIO_HAS_CO_AWAIT 1
#endif
#ifndef BOOST_ASIO_HAS_STD_COROUTINE
#define BOOST_ASIO_HAS_STD_COROUTINE 1
#endif
// clang-format off
#include <utility>
#include <boost/asio.hpp>
// clang-format on

#include <fmt/format.h>

#include <chrono>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/error.h"

namespace cartesian {

namespace asio = boost::asio;
using asio::awaitable;
using asio::ip::tcp;
using boost::system::error_code;

/// Bytes that one read takes at most.
inline constexpr std::size_t kReadSize = std::size_t{64} << 10;

/// Completes a coroutine's wait with `error` instead of an exception.
inline auto error_in(error_code& error) { return asio::redirect_error(asio::use_awaitable, error); }

inline std::chrono::nanoseconds in_ns(Seconds time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time);
}

/// From now on `acceptor` takes connections at a numeric `address` and `port` (0: any), which is
/// returned. Throws ConfigError, "`refusal` ADDRESS port PORT: ...".
inline std::uint16_t listen_at(tcp::acceptor& acceptor, const std::string& address,
                               std::uint16_t port, std::string_view refusal) {
  try {
    const tcp::endpoint endpoint(asio::ip::make_address(address), port);
    acceptor.open(endpoint.protocol());
    acceptor.set_option(tcp::acceptor::reuse_address(true));
    acceptor.bind(endpoint);
    acceptor.listen();
    return acceptor.local_endpoint().port();
  } catch (const boost::system::system_error& error) {
    throw ConfigError(
        fmt::format("{} {} port {}: {}", refusal, address, port, error.code().message()));
  }
}

}  // namespace cartesian
