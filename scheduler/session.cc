#include "scheduler/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace cartesian {

Session::Session(const SessionLimits& limits, Seconds now)
    : limits_(limits), begun_(now), heard_(now), filled_(now), allowance_(limits.burst) {}

void Session::receive(std::string_view bytes, Seconds now) {
  if (ended()) {
    return;
  }
  inbox_.append(bytes);
  handle_frames(now);
  if (!ended() && !registered() && inbox_.pending() > 2 * kStrangerFrame) {
    end(fmt::format("more than {} bytes at once", 2 * kStrangerFrame));
  }
}

void Session::resume(Seconds now) { handle_frames(now); }

void Session::handle_frames(Seconds now) {
  try {
    while (!ended() && stage_ != Stage::admission) {
      const auto frame = inbox_.next(registered() ? kMemberFrame : kStrangerFrame);
      if (!frame) {
        return;
      }
      if (!within_rate(now)) {
        end(fmt::format("more than {:g} messages a second", limits_.messages_per_s));
        return;
      }
      heard_ = now;
      handle(static_cast<MessageKind>(frame->kind), frame->payload);
    }
  } catch (const FormatError& error) {
    end(error.what());
  }
}

bool Session::within_rate(Seconds now) {
  allowance_ =
      std::min(limits_.burst, allowance_ + (now - filled_).count() * limits_.messages_per_s);
  filled_ = now;
  if (allowance_ < 1) {
    return false;
  }
  --allowance_;
  return true;
}

void Session::tick(Seconds now) {
  if (registered() && now - heard_ > limits_.silence) {
    end(fmt::format("nothing was heard for {:g} s", limits_.silence.count()));
  } else if (!ended() && !registered() && now - begun_ > limits_.handshake) {
    end(fmt::format("{} within {:g} s", awaited(), limits_.handshake.count()));
  }
}

std::string Session::take_output() { return std::exchange(outbox_, {}); }

void Session::put(std::string_view frame) {
  if (outbox_.size() + frame.size() > limits_.outbox) {
    outbox_.clear();
    end(fmt::format("does not read the {} bytes that were sent to it", limits_.outbox));
    return;
  }
  outbox_ += frame;
}

void Session::end(std::string_view why) {
  if (!ended()) {
    ending_ = fmt::format("{}: {} in {}", peer(), why,
                          registered() ? "the control connection" : "the registration");
    stage_ = Stage::ended;
  }
}

}  // namespace cartesian
