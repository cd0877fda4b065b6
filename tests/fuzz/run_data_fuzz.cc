#include <gtest/gtest.h>

#include "runtime/report/csv.h"
#include "runtime/report/page.h"
#include "runtime/report/tensorboard.h"
#include "tests/fuzz/memory_files.h"
#include "tests/fuzz/mutator.h"

namespace cartesian {
namespace {

const char* const kConfig = "[train]\nsteps = 4\nbatch_sequences = 2\n";
const char* const kMetrics =
    "{\"step\": 1, \"loss\": 3.5, \"step_s\": 0.5, \"phase_s\": {\"experts\": 0.25}}\n"
    "{\"step\": 2, \"loss\": 3.25, \"step_s\": 0.5}\n"
    "{\"step\": 2, \"valid_loss\": 3.0}\n";
const char* const kExperts =
    "{\"step\": 1, \"steps\": 1, \"loads\": [[[1, 2], [3, 0]]]}\n"
    "{\"step\": 2, \"steps\": 1, \"loads\": [[[2, 2], [4, 0]]], \"pair_steps\": 2, \"pairs\": "
    "[[[1, 2], [3, 4]]]}\n";
const std::vector<std::string> kWords = {"\"step\"", "\"loads\"", "[[[1, 2]]]", "\"pairs\"", "null",
                                         "1e999",    "\"loss\"",  "{\"a\": 1}", "\n",        "[]"};

/// Reads a run of which `name` is damaged, and makes all that a report is made of.
void fuzz_file(const std::string& name, const std::string& contents) {
  fuzz(Mutator({contents}, kWords), [&](const std::string& input) {
    MemoryFiles files;
    files.set("run/config.toml", kConfig);
    files.set("run/metrics.jsonl", kMetrics);
    files.set("run/experts.jsonl", kExperts);
    files.set(Path("run") / name, input);
    const std::vector<RunData> runs = load_runs(files, {"run"});
    EXPECT_FALSE(make_page(runs).empty());
    EXPECT_FALSE(make_csv(runs).empty());
    EXPECT_FALSE(make_event_file(runs.front()).empty());
  });
}

TEST(Fuzz, Metrics) { fuzz_file("metrics.jsonl", kMetrics); }
TEST(Fuzz, Experts) { fuzz_file("experts.jsonl", kExperts); }

}  // namespace
}  // namespace cartesian
