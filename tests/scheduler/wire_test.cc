#include "scheduler/wire.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "scheduler/control_messages.h"
#include "tests/scheduler/sample_job.h"
#include "tests/support/expect_error.h"

namespace cartesian {
namespace {

StepReport sample_report() {
  const JobShape shape = testing_job::shape(4);
  StepReport report = testing_job::report(shape, 1, 12);
  report.co_activation.assign(shape.co_activations(), 2.0F);
  report.plan_version = 3;
  report.plans_adopted = 4;
  report.plans_rejected = 5;
  report.plans_failed = 6;
  report.migrated_bytes = 7000;
  return report;
}

/// Comes back as it was; nothing shorter or longer is taken.
template <class Message>
void expect_round_trip(const Message& message) {
  const std::string payload = message.encode();
  EXPECT_EQ(Message::decode(payload), message);
  for (std::size_t size = 0; size < payload.size(); ++size) {
    EXPECT_THROW(Message::decode(std::string_view(payload).substr(0, size)), FormatError) << size;
  }
  EXPECT_THROW(Message::decode(payload + "x"), FormatError);
}

TEST(ControlMessages, GoRoundTrip) {
  expect_round_trip(testing_job::hello(3, 8));
  expect_round_trip(Challenge{random_nonce()});
  expect_round_trip(Proof{random_nonce()});
  expect_round_trip(Welcome{random_nonce()});
  expect_round_trip(Refused{"no"});
  expect_round_trip(Refused{});
  expect_round_trip(Heartbeat{-1});
  expect_round_trip(Heartbeat{1LL << 40});
  expect_round_trip(Command{5, 12, "replan", std::string("\0\xff{}", 4)});
  expect_round_trip(Ack{5, true});
  expect_round_trip(Ack{5, false});
  expect_round_trip(Goodbye{75, "stopped by USR1"});
  expect_round_trip(sample_report());
  expect_round_trip(StepReport{});
}

TEST(ControlMessages, OtherVersionsAreRecognised) {
  EXPECT_EQ(Hello::decode("\x09 whatever it has").version, 9);
}

TEST(ControlMessages, TextsComeOutPrintable) {
  EXPECT_EQ(Refused::decode(Refused{"a\x1b[2Jb\nc\xff"}.encode()).reason, "a?[2Jb?c?");
}

TEST(ControlMessages, LongTextsAreCut) {
  EXPECT_EQ(Refused::decode(Refused{std::string(5000, 'a')}.encode()).reason.size(), 1024U);
  WireWriter writer;
  writer.put_text(std::string(1025, 'a'));
  expect_error<FormatError>([&] { Refused::decode(writer.take()); }, {"refused", "reason", "1025"});
}

TEST(ControlMessages, ValuesOutOfRangeAreRefused) {
  EXPECT_THROW(Heartbeat::decode(Heartbeat{-2}.encode()), FormatError);
  EXPECT_THROW(Heartbeat::decode(Heartbeat{kMostCount + 1}.encode()), FormatError);
  EXPECT_THROW(Command::decode(Command{1, -1, "k", ""}.encode()), FormatError);
  EXPECT_THROW(Command::decode(Command{1, 1, std::string(65, 'k'), ""}.encode()), FormatError);
  std::string ack = Ack{1, true}.encode();
  ack.back() = 2;
  EXPECT_THROW(Ack::decode(ack), FormatError);
}

TEST(StepReport, ValuesThatWouldPoisonSumsAreRefused) {
  const auto refused = [](auto change, std::string_view field) {
    StepReport report = sample_report();
    change(report);
    expect_error<FormatError>([&] { StepReport::decode(report.encode()); },
                              {"step report", std::string(field)});
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  refused([&](StepReport& r) { r.loss = infinity; }, "loss");
  refused([&](StepReport& r) { r.gradient_norm = nan; }, "gradient_norm");
  refused([&](StepReport& r) { r.learning_rate = -1; }, "learning_rate");
  refused([&](StepReport& r) { r.checkpoint_step = -2; }, "checkpoint_step");
  refused([&](StepReport& r) { r.checkpoint_step = kMostCount + 1; }, "checkpoint_step");
  refused([&](StepReport& r) { r.step = kMostCount + 1; }, "step");
  refused([&](StepReport& r) { r.step_s = nan; }, "step_s");
  refused([&](StepReport& r) { r.wait_s = -1; }, "wait_s");
  refused([&](StepReport& r) { r.phase_s.back() = nan; }, "phase_s");
  refused([&](StepReport& r) { r.step = -1; }, "step");
  refused([&](StepReport& r) { r.inter_bytes = -1; }, "inter_bytes");
  refused([&](StepReport& r) { r.loads.front() = infinity; }, "loads");
  refused([&](StepReport& r) { r.co_activation.front() = -1; }, "co_activation");
  refused([&](StepReport& r) { r.waits_by_peer.front() = nan; }, "waits_by_peer");
  refused([&](StepReport& r) { r.plan_version = -1; }, "plan_version");
  refused([&](StepReport& r) { r.plans_adopted = -1; }, "plans_adopted");
  refused([&](StepReport& r) { r.plans_rejected = -1; }, "plans_rejected");
  refused([&](StepReport& r) { r.plans_failed = -1; }, "plans_failed");
  refused([&](StepReport& r) { r.migrated_bytes = -1; }, "migrated_bytes");
}

TEST(StepReport, SizesAreTheJobs) {
  const JobShape shape = testing_job::shape(4);
  EXPECT_EQ(mismatch(sample_report(), shape), "");
  const auto differs = [&](auto change) {
    StepReport report = sample_report();
    change(report);
    return mismatch(report, shape);
  };
  EXPECT_NE(differs([](StepReport& r) { r.phase_s.pop_back(); }).find("phase_s"),
            std::string::npos);
  EXPECT_NE(differs([](StepReport& r) { r.loads.clear(); }).find("loads"), std::string::npos);
  EXPECT_NE(differs([](StepReport& r) { r.co_activation.resize(1); }).find("co_activation"),
            std::string::npos);
  EXPECT_NE(differs([](StepReport& r) { r.waits_by_peer.resize(1); }).find("waits_by_peer"),
            std::string::npos);
  EXPECT_EQ(differs([](StepReport& r) { r.co_activation.clear(); }), "");
  EXPECT_EQ(differs([](StepReport& r) { r.waits_by_peer.clear(); }), "");
}

TEST(WireReader, LengthsAreNotBelieved) {
  WireWriter writer;
  writer.put(std::uint32_t{0xFFFFFFFF});
  const std::string bytes = writer.take();
  expect_error<FormatError>([&] { WireReader("m", bytes).get_list<double>("numbers"); },
                            {"m: numbers", "cut short"});
  expect_error<FormatError>([&] { WireReader("m", bytes).get_blob("blob", 1U << 31U); }, {"blob"});
}

TEST(FrameBuffer, CutsWhateverThePieces) {
  std::string stream;
  for (int i = 0; i < 50; ++i) {
    stream +=
        make_frame(static_cast<std::uint8_t>(i), std::string(static_cast<std::size_t>(i), 'p'));
  }
  for (const std::size_t piece : {1, 2, 3, 5, 7, 64, 10'000}) {
    FrameBuffer buffer;
    int seen = 0;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      buffer.append(std::string_view(stream).substr(at, piece));
      while (const auto frame = buffer.next(kStrangerFrame)) {
        EXPECT_EQ(frame->kind, seen);
        EXPECT_EQ(frame->payload, std::string(static_cast<std::size_t>(seen), 'p'));
        ++seen;
      }
    }
    EXPECT_EQ(seen, 50);
    EXPECT_EQ(buffer.pending(), 0U);
  }
}

TEST(FrameBuffer, RefusesALengthBeforeItsBytes) {
  for (const std::uint32_t length : {0U, 4097U, 0xFFFFFFFFU}) {
    WireWriter writer;
    writer.put(length);
    FrameBuffer buffer;
    buffer.append(writer.take());
    EXPECT_THROW(buffer.next(kStrangerFrame), FormatError) << length;
  }
}

}  // namespace
}  // namespace cartesian
