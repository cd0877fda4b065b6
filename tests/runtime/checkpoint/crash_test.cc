// Whatever fails while a checkpoint is written, at whichever operation: the one before it still
// loads, nothing half-written is taken for a checkpoint, and the next writer cleans up.

#include <gtest/gtest.h>

#include "tests/support/faulty_file_system.h"
#include "tests/support/tiny_checkpoint.h"
#include "tests/support/unsynced_file_system.h"

namespace cartesian::test {
namespace {

ModelConfig small_model() {
  ModelConfig config = tiny_model();
  config.num_hidden_layers = 1;
  config.num_experts = 2;
  return config;
}

std::string name_of_fault(const testing::TestParamInfo<Fault>& info) {
  return info.param == Fault::no_space ? "no_space"
         : info.param == Fault::crash  ? "crash"
                                       : "power_cut";
}

class CrashTest : public testing::TestWithParam<Fault> {
 protected:
  CrashTest() : files_(std::make_unique<UnsyncedFileSystem>(make_posix_file_system())) {
    save_tiny(*files_, checkpoints(), small_model(), 1, /*seed=*/11);
  }
  Path checkpoints() const { return directory_ / "checkpoints"; }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_;
};

TEST_P(CrashTest, TheLastCompleteCheckpointSurvives) {
  const ModelConfig config = small_model();
  FaultyFileSystem counting(*files_);
  save_tiny(counting, checkpoints(), config, 2, 12);
  files_->remove_all(checkpoints() / checkpoint_name(2));
  const std::int64_t operations = counting.operations();
  ASSERT_GT(operations, 20);
  for (std::int64_t n = 0; n < operations; ++n) {
    SCOPED_TRACE("operation " + std::to_string(n) + " of " + std::to_string(operations));
    FaultyFileSystem faulty(*files_);
    faulty.fail_at(n, GetParam());
    try {
      save_tiny(faulty, checkpoints(), config, 2, 12);
      ADD_FAILURE() << "no error was thrown";
    } catch (const FileError& error) {
      EXPECT_NE(std::string(error.what()).find(checkpoints().string()), std::string::npos)
          << error.what();
    }
    EXPECT_TRUE(faulty.failed());
    const std::vector<std::int64_t> steps = complete_checkpoints(*files_, checkpoints());
    ASSERT_FALSE(steps.empty());
    EXPECT_EQ(steps[0], 1);
    for (const std::int64_t step : steps) {
      expect_tiny(*files_, checkpoints() / checkpoint_name(step), config, step,
                  static_cast<std::uint64_t>(10 + step));
    }
    // As a run that is started again does.
    remove_incomplete_checkpoints(*files_, checkpoints());
    save_tiny(*files_, checkpoints(), config, 2, 12);
    EXPECT_EQ(files_->list(checkpoints()),
              (std::vector<std::string>{checkpoint_name(1), checkpoint_name(2)}));
    expect_tiny(*files_, checkpoints() / checkpoint_name(2), config, 2, 12);
    files_->remove_all(checkpoints() / checkpoint_name(2));
  }
}

TEST_P(CrashTest, WhenTheOldestIsRemoved) {
  const ModelConfig config = small_model();
  FaultyFileSystem counting(*files_);
  save_tiny(counting, checkpoints(), config, 2, 12, /*keep_last=*/1);
  EXPECT_EQ(complete_checkpoints(*files_, checkpoints()), std::vector<std::int64_t>{2});
  const std::int64_t operations = counting.operations();
  for (std::int64_t n = operations - 8; n < operations; ++n) {
    SCOPED_TRACE("operation " + std::to_string(n));
    files_->remove_all(checkpoints());
    save_tiny(*files_, checkpoints(), config, 1, 11);
    FaultyFileSystem faulty(*files_);
    faulty.fail_at(n, GetParam());
    EXPECT_THROW(save_tiny(faulty, checkpoints(), config, 2, 12, /*keep_last=*/1), FileError);
    const std::vector<std::int64_t> steps = complete_checkpoints(*files_, checkpoints());
    ASSERT_FALSE(steps.empty());
    for (const std::int64_t step : steps) {
      expect_tiny(*files_, checkpoints() / checkpoint_name(step), config, step,
                  static_cast<std::uint64_t>(10 + step));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Faults, CrashTest,
                         testing::Values(Fault::no_space, Fault::crash, Fault::power_cut),
                         name_of_fault);

// One rank's disk is full: all ranks get the error, which names that rank and the file.
TEST(CheckpointWriterTest, AFailureOfOneRankIsAnErrorOnAll) {
  const auto files = make_posix_file_system();
  const TemporaryDirectory directory;
  TrainingSetup setup;
  setup.ranks = 3;
  with_ranks(setup, [&](ModelRank& rank) {
    FaultyFileSystem faulty(*files);
    if (rank.transport().rank() == 1) {
      faulty.fail_at(2, Fault::no_space);
    }
    CheckpointWriter writer(faulty, rank.transport(), directory.path());
    writer.begin(rank.parameters(), info_at(setup.model, 5));
    try {
      writer.commit();
      ADD_FAILURE() << "no error was thrown";
    } catch (const FileError& error) {
      const std::string sentence = error.what();
      EXPECT_NE(sentence.find("rank 1"), std::string::npos) << sentence;
      EXPECT_NE(sentence.find("model-00002-of-00003.safetensors"), std::string::npos) << sentence;
      EXPECT_NE(sentence.find("No space left"), std::string::npos) << sentence;
    }
    EXPECT_FALSE(writer.in_progress());
    EXPECT_TRUE(complete_checkpoints(*files, directory.path()).empty());
    // The same writer works once there is room.
    writer.begin(rank.parameters(), info_at(setup.model, 5));
    EXPECT_EQ(writer.commit(), directory / checkpoint_name(5));
  });
  EXPECT_EQ(files->list(directory.path()), std::vector<std::string>{checkpoint_name(5)});
}

TEST(CheckpointWriterTest, KeepsTheLast) {
  const auto files = make_posix_file_system();
  const TemporaryDirectory directory;
  for (const std::int64_t step : {3, 4, 20, 100}) {
    save_tiny(*files, directory.path(), small_model(), step, 1, /*keep_last=*/2);
  }
  EXPECT_EQ(files->list(directory.path()),
            (std::vector<std::string>{checkpoint_name(20), checkpoint_name(100)}));
}

TEST(CheckpointWriterTest, ReplacesTheSameStep) {
  const auto files = make_posix_file_system();
  const TemporaryDirectory directory;
  save_tiny(*files, directory.path(), small_model(), 3, 1);
  save_tiny(*files, directory.path(), small_model(), 3, 2);
  expect_tiny(*files, directory / checkpoint_name(3), small_model(), 3, 2);
  EXPECT_EQ(files->list(directory.path()), std::vector<std::string>{checkpoint_name(3)});
}

TEST(CheckpointFilesTest, OnlyCompleteOnesCount) {
  const auto files = make_posix_file_system();
  const TemporaryDirectory directory;
  save_tiny(*files, directory.path(), small_model(), 3, 1);
  for (const char* name : {"step-00000004", "step-x", "step-", "step--1", "other", ".tmp-x",
                           "step-99999999999999999999"}) {
    files->create_directories(directory / name);
  }
  files->write_atomically(directory / "step-00000005", "a file");
  EXPECT_EQ(complete_checkpoints(*files, directory.path()), std::vector<std::int64_t>{3});
  remove_incomplete_checkpoints(*files, directory.path());
  EXPECT_FALSE(files->exists(directory / ".tmp-x"));
  EXPECT_TRUE(files->exists(directory / "other"));
}

}  // namespace
}  // namespace cartesian::test
