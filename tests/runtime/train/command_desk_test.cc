// What an operator asks for by a file: taken once, sent to all ranks, sent anew if it came too
// late, and answered if it is not understood.

#include "runtime/train/command_desk.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/temporary_directory.h"

namespace cartesian::test {
namespace {

class CommandDeskTest : public testing::Test {
 protected:
  CommandDeskTest()
      : files_(make_posix_file_system()),
        coordinator_({}, {.ranks = 1, .node_of_rank = {0}, .hosts = {"here"}, .phases = {}},
                     JobSecret::random()) {}

  CommandDesk desk() {
    return {*files_, clock_, coordinator_, file_,
            [this](const std::string& text) { said_.push_back(text); }};
  }
  void ask(const std::string& word) { files_->write_atomically(file_, word); }
  /// Commands that went out, by kind.
  std::vector<std::string> sent() {
    std::vector<std::string> kinds;
    coordinator_.inspect([&](const JobState& state) {
      for (const Command* command : state.commands().owed(0)) {
        kinds.push_back(command->kind);
      }
    });
    return kinds;
  }
  Command last_sent() {
    Command command;
    coordinator_.inspect(
        [&](const JobState& state) { command = *state.commands().owed(0).back(); });
    return command;
  }

  TemporaryDirectory directory_;
  Path file_ = directory_ / "command";
  std::unique_ptr<FileSystem> files_;
  FakeClock clock_;
  Coordinator coordinator_;
  std::vector<std::string> said_;
};

TEST_F(CommandDeskTest, LooksOnceASecondAndTakesTheFile) {
  CommandDesk desk = this->desk();
  desk.attend(1, 0);
  ask("stop\n");
  clock_.advance(Seconds(0.5));
  desk.attend(2, 0);
  EXPECT_TRUE(sent().empty());
  clock_.advance(Seconds(0.5));
  desk.attend(3, 0);
  EXPECT_EQ(sent(), std::vector<std::string>{"stop"});
  EXPECT_FALSE(files_->exists(file_));
}

TEST_F(CommandDeskTest, SaysWhenAllRanksDoIt) {
  CommandDesk desk = this->desk();
  ask("checkpoint");
  desk.attend(1, 0);
  const Command command = last_sent();
  desk.attend(command.at_step, command.id);
  ASSERT_EQ(said_.size(), 1U);
  EXPECT_NE(said_[0].find("checkpoint: all ranks"), std::string::npos);
  desk.close();
  EXPECT_EQ(said_.size(), 1U);
  EXPECT_EQ(sent().size(), 1U);
}

TEST_F(CommandDeskTest, SendsAnewWhatCameTooLateAndInTheEndSaysSo) {
  CommandDesk desk = this->desk();
  ask("stop");
  std::int64_t step = 1;
  desk.attend(step, 0);
  const std::uint64_t first = last_sent().id;
  for (; said_.empty() && step < 100'000; ++step) {
    desk.attend(step, 0);
  }
  const auto kinds = sent();
  EXPECT_EQ(kinds.size(), 12U);
  EXPECT_EQ(std::ranges::count(kinds, "stop"), 12);
  EXPECT_NE(last_sent().id, first);
  EXPECT_GT(last_sent().at_step, 3 << 11);  // ever further away
  ASSERT_EQ(said_.size(), 1U);
  EXPECT_NE(said_[0].find("stop: not done"), std::string::npos);
}

TEST_F(CommandDeskTest, AnswersWhatItDoesNotKnow) {
  CommandDesk desk = this->desk();
  ask("halt");
  desk.attend(1, 0);
  EXPECT_TRUE(sent().empty());
  EXPECT_FALSE(files_->exists(file_));
  ASSERT_EQ(said_.size(), 1U);
  EXPECT_NE(said_[0].find("must be stop or checkpoint or replan"), std::string::npos);
}

TEST_F(CommandDeskTest, WaitsForAFileThatIsBeingWritten) {
  CommandDesk desk = this->desk();
  ask("");
  desk.attend(1, 0);
  EXPECT_TRUE(files_->exists(file_));
  ask("stop");
  clock_.advance(Seconds(1));
  desk.attend(2, 0);
  EXPECT_EQ(sent(), std::vector<std::string>{"stop"});
}

TEST_F(CommandDeskTest, AFileOfAnEarlierRunIsNoCommand) {
  ask("stop");
  CommandDesk desk = this->desk();
  EXPECT_FALSE(files_->exists(file_));
  desk.attend(1, 0);
  EXPECT_TRUE(sent().empty());
  EXPECT_EQ(said_.size(), 1U);
}

}  // namespace
}  // namespace cartesian::test
