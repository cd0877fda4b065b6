#include "runtime/report/run_data.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/fuzz/memory_files.h"
#include "tests/support/expect_error.h"

namespace cartesian {
namespace {

MemoryFiles small_run() {
  MemoryFiles files;
  files.set("runs/a/config.toml",
            "[train]\nsteps = 4\nlearning_rate = 3e-3\n[run]\ndir = 'x'\n[new]\nkey = [1, 2]\n");
  files.set("runs/a/metrics.jsonl",
            "{\"step\":1,\"loss\":3.5,\"phase_s\":{\"experts\":0.5}}\n"
            "{\"step\":2,\"loss\":3,\"extra\":7}\n"
            "{\"step\":2,\"valid_loss\":3.25}\n"
            "{\"step\":3,\"lo");
  return files;
}

TEST(RunDataTest, EveryNumberIsAColumn) {
  MemoryFiles files = small_run();
  const RunData run = load_run(files, "runs/a");
  EXPECT_EQ(run.name, "a");
  EXPECT_EQ(run.steps.steps, (std::vector<std::int64_t>{1, 2}));
  ASSERT_NE(run.steps.find("extra"), nullptr);
  EXPECT_TRUE(std::isnan(run.steps.find("extra")->values[0]));
  EXPECT_EQ(run.steps.find("extra")->values[1], 7);
  EXPECT_EQ(run.steps.find("phase_s.experts")->values[0], 0.5);
  EXPECT_EQ(run.steps.find("phase_s.experts")->values.size(), 2U);
  EXPECT_EQ(run.validations.find("valid_loss")->values, std::vector<double>{3.25});
  EXPECT_TRUE(run.summary.is_null());
}

TEST(RunDataTest, OfEqualStepsTheLastCounts) {
  MemoryFiles files = small_run();
  files.set("runs/a/metrics.jsonl",
            "{\"step\":1,\"loss\":4,\"extra\":1}\n{\"step\":1,\"valid_loss\":3}\n"
            "{\"step\":1,\"loss\":5}\n{\"step\":1,\"valid_loss\":2}\n");
  const RunData run = load_run(files, "runs/a");
  EXPECT_EQ(run.steps.steps, std::vector<std::int64_t>{1});
  EXPECT_EQ(run.steps.find("loss")->values, std::vector<double>{5});
  EXPECT_TRUE(std::isnan(run.steps.find("extra")->values[0]));
  EXPECT_EQ(run.validations.find("valid_loss")->values, std::vector<double>{2});
}

TEST(RunDataTest, ConfigurationsOfOtherVersionsAreRead) {
  MemoryFiles files = small_run();
  const RunData run = load_run(files, "runs/a/");
  EXPECT_EQ(run.config_value("train.learning_rate"), "0.003");
  EXPECT_EQ(run.config_value("new.key"), "[ 1, 2 ]");
  EXPECT_EQ(run.config_value("absent"), "");
}

TEST(RunDataTest, EqualNamesBecomePaths) {
  MemoryFiles files = small_run();
  for (const char* name : {"config.toml", "metrics.jsonl"}) {
    files.set(Path("other/a") / name, files.read(Path("runs/a") / name));
  }
  const auto runs = load_runs(files, {"runs/a", "other/a"});
  EXPECT_EQ(runs[0].name, "runs/a");
  EXPECT_EQ(runs[1].name, "other/a");
}

TEST(RunDataTest, WhatIsWrongIsNamed) {
  MemoryFiles files;
  expect_error<FormatError>([&] { load_run(files, "runs/b"); }, {"runs/b", "config.toml"});
  files = small_run();
  files.set("runs/a/experts.jsonl",
            "{\"step\":2,\"steps\":2,\"loads\":[[[1,2],[3,4]]],\"pair_steps\":2,\"pairs\":[[[1,2,3]"
            ",[1,2,3]]]}\n");
  expect_error<FormatError>([&] { load_run(files, "runs/a"); },
                            {"runs/a/experts.jsonl:1", "pairs"});
}

}  // namespace
}  // namespace cartesian
