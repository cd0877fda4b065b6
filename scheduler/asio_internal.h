#pragma once
// Boost.Asio as the coordinator and the agents use it. Not a public header.

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

#include <chrono>

#include "base/clock.h"

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

}  // namespace cartesian
