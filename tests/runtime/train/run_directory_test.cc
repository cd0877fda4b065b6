// A run's directory: what it refuses, what it keeps when a run goes on, and that all ranks agree.

#include "runtime/train/run_directory.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "comm/collectives.h"
#include "comm/local_transport.h"
#include "runtime/config/config.h"
#include "runtime/job.h"
#include "tests/support/expect_error.h"
#include "tests/support/tiny_checkpoint.h"

namespace cartesian::test {
namespace {

class RunDirectoryTest : public testing::Test {
 protected:
  RunDirectoryTest() : files_(make_posix_file_system()) {
    config_.run.dir = (directory_ / "runs" / "one").string();
  }
  /// On two ranks.
  void with_directory(bool resume, const std::function<void(RunDirectory&, Transport&)>& body) {
    run_local_ranks(2, [&](Transport& transport) {
      RunDirectory directory(*files_, transport, config_, resume);
      body(directory, transport);
    });
  }
  std::string metrics() const { return files_->read(Path(config_.run.dir) / "metrics.jsonl"); }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_;
  Config config_;
};

TEST_F(RunDirectoryTest, KeepsTheConfigurationAndALineForEachRecord) {
  with_directory(false, [&](RunDirectory& directory, Transport&) {
    EXPECT_FALSE(directory.last_checkpoint().has_value());
    directory.open_log(config_, 0);
    directory.log({{"step", 1}, {"loss", 2.5}});
    directory.log({{"step", 2}, {"loss", 2.25}});
    directory.write_summary({{"loss", 2.25}});
  });
  EXPECT_EQ(metrics(), "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2.25}\n");
  EXPECT_EQ(files_->read(Path(config_.run.dir) / "config.toml"), to_toml(config_));
  EXPECT_EQ(
      files_->list(config_.run.dir),
      (std::vector<std::string>{".lock", "checkpoints", "config.toml", "environment.jsonl",
                                "experts.jsonl", "metrics.jsonl", "plans.jsonl", "summary.json"}));
}

TEST_F(RunDirectoryTest, ARunThatGoesOnDropsWhatItWillWriteAgain) {
  with_directory(false, [&](RunDirectory& directory, Transport&) {
    directory.open_log(config_, 0);
    for (int step = 1; step <= 5; ++step) {
      directory.log({{"step", step}});
    }
  });
  {  // killed in the middle of a line
    const auto file = files_->open_append(Path(config_.run.dir) / "metrics.jsonl");
    file->append(R"({"step": 2, "lo)");
    file->close();
  }
  with_directory(true, [&](RunDirectory& directory, Transport&) {
    directory.open_log(config_, 3);
    directory.log({{"step", 4}, {"again", true}});
  });
  EXPECT_EQ(metrics(), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":4,\"again\":true}\n");
  with_directory(true,
                 [&](RunDirectory& directory, Transport&) { directory.open_log(config_, 0); });
  EXPECT_EQ(metrics(), "");
}

TEST_F(RunDirectoryTest, APlacementThatWasHalfWrittenIsRemoved) {
  const auto write = [](RunDirectory& directory, Transport&) { directory.write_placement("{}"); };
  with_directory(false, write);
  save_tiny(*files_, Path(config_.run.dir) / "checkpoints", tiny_model(), 3, 1);
  const Path path = Path(config_.run.dir) / "placement.json.tmp";
  files_->create(path)->close();
  with_directory(true, [](RunDirectory&, Transport&) {});
  EXPECT_FALSE(files_->exists(path));
  EXPECT_EQ(files_->read(Path(config_.run.dir) / kPlacementFile), "{}");
}

TEST_F(RunDirectoryTest, APlacementOfARunThatLeftNoCheckpointIsRemoved) {
  const Path placement = Path(config_.run.dir) / kPlacementFile;
  const auto start = [&](bool resume) {
    files_->write_atomically(placement, "{}");
    with_directory(resume, [](RunDirectory&, Transport&) {});
    return files_->exists(placement);
  };
  with_directory(false, [](RunDirectory&, Transport&) {});
  EXPECT_FALSE(start(/*resume=*/false));
  EXPECT_FALSE(start(/*resume=*/true));
  config_.parallel.placement = placement.string();  // the user's
  EXPECT_TRUE(start(/*resume=*/false));
  config_.parallel.placement = "linear";
  save_tiny(*files_, Path(config_.run.dir) / "checkpoints", tiny_model(), 3, 1);
  EXPECT_TRUE(start(/*resume=*/true));
}

TEST_F(RunDirectoryTest, RefusesToMixTwoRuns) {
  const Path checkpoints = Path(config_.run.dir) / "checkpoints";
  with_directory(false, [](RunDirectory&, Transport&) {});
  EXPECT_NO_THROW(with_directory(false, [](RunDirectory&, Transport&) {}));  // nothing in it yet
  save_tiny(*files_, checkpoints, tiny_model(), 3, 1);
  save_tiny(*files_, checkpoints, tiny_model(), 12, 1);
  files_->create_directories(checkpoints / ".tmp-step-00000013");
  expect_error<ConfigError>([&] { with_directory(false, [](RunDirectory&, Transport&) {}); },
                            {config_.run.dir, "--resume"});
  with_directory(true, [&](RunDirectory& directory, Transport&) {
    EXPECT_EQ(directory.last_checkpoint(), checkpoints / checkpoint_name(12));
  });
  EXPECT_FALSE(files_->exists(checkpoints / ".tmp-step-00000013"));
}

TEST_F(RunDirectoryTest, OneJobAtATime) {
  with_directory(false, [&](RunDirectory&, Transport& transport) {
    barrier(transport);
    if (transport.rank() == 0) {
      run_local_ranks(1, [&](Transport& other) {
        expect_error<ConfigError>([&] { RunDirectory second(*files_, other, config_, true); },
                                  {config_.run.dir, "in use"});
      });
    }
    barrier(transport);
  });
  EXPECT_NO_THROW(with_directory(true, [](RunDirectory&, Transport&) {}));
}

TEST_F(RunDirectoryTest, APlaceThatCannotBeWrittenIsNamed) {
  files_->write_atomically(directory_ / "file", "in the way");
  config_.run.dir = (directory_ / "file" / "run").string();
  expect_error<FileError>([&] { with_directory(false, [](RunDirectory&, Transport&) {}); },
                          {config_.run.dir});
}

TEST_F(RunDirectoryTest, RanksThatSeeAnotherDirectoryAreNamed) {
  try {
    run_local_ranks(2, [&](Transport& transport) {
      Config config = config_;
      config.run.dir = (directory_ / std::to_string(transport.rank())).string();
      RunDirectory directory(*files_, transport, config, false);
    });
    ADD_FAILURE() << "no error was thrown";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("rank 1"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("shared file system"), std::string::npos);
  }
}

TEST(SameContentsTest, TheRankThatReadsSomethingElseIsNamedOnEveryRank) {
  run_local_ranks(3, [](Transport& transport) {
    EXPECT_NO_THROW(check_same_contents(transport, "data.train = \"x\"", "hash"));
    expect_error<ConfigError>(
        [&] {
          check_same_contents(transport, "data.train = \"x\"", transport.rank() == 1 ? "a" : "b");
        },
        {"data.train = \"x\"", "rank 1 (" + transport.host() + ")"});
  });
}

TEST(SameConfigTest, TheFirstDifferenceIsNamedOnEveryRank) {
  run_local_ranks(3, [](Transport& transport) {
    Config config;
    EXPECT_NO_THROW(check_same_config(transport, config));
    if (transport.rank() == 2) {
      config.train.seed = 9;
    }
    try {
      check_same_config(transport, config);
      ADD_FAILURE() << "no error was thrown";
    } catch (const ConfigError& error) {
      const std::string sentence = error.what();
      for (const char* part : {"rank 2", "[train]", "seed = 9", "seed = 1"}) {
        EXPECT_NE(sentence.find(part), std::string::npos) << sentence;
      }
      EXPECT_TRUE(error.on_every_rank());
    }
  });
}

}  // namespace
}  // namespace cartesian::test
