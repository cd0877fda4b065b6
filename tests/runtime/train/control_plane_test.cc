// A run with the control plane has the bits of one without; what ranks report adds up to what the
// run's own logs say; and all ranks act on a command before the same step.

#include "runtime/train/control_plane.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "comm/collectives.h"
#include "comm/local_transport.h"
#include "runtime/data/staged_files.h"
#include "runtime/data/token_file_writer.h"
#include "runtime/train/trainer.h"
#include "scheduler/report_window.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_model.h"

namespace cartesian::test {
namespace {

constexpr int kRanks = 3;
constexpr std::int64_t kSteps = 12;

/// A rank that has a control plane and no training.
struct ControlledRank {
  /// Of one thread. `files`, `clock`, `transport` and `stop` must outlive it.
  ControlledRank(FileSystem& files, const Clock& clock, Transport& transport, StopSignal& stop,
                 const Config& config)
      : job{files, clock, metrics, transport, stop},
        topology(find_topology(transport, {})),
        placement(
            Placement::linear(placement_shape(config.model, topology.ranks()), topology.ranks())),
        timed(transport, steady, metrics),
        control(job, config,
                {.topology = topology,
                 .placement = placement,
                 .transport = timed,
                 .say = [this](const std::string& text) { said.push_back(text); }}) {}

  SteadyClock steady;
  Metrics metrics;
  Job job;
  Topology topology;
  Placement placement;
  TimedTransport timed;
  std::vector<std::string> said;
  ControlPlane control;
};

class ControlPlaneTest : public testing::Test {
 protected:
  ControlPlaneTest() : files_(make_posix_file_system()) {
    StagedFiles staged(*files_);
    TokenFileWriter writer(staged, directory_ / "tokens", tiny_model().vocab_size);
    writer.append(random_ids(1, 2000, static_cast<std::int32_t>(tiny_model().vocab_size)));
    writer.end_document();
    writer.finish();
    staged.publish();
  }

  Config config(const std::string& run) const {
    Config config;
    config.model = tiny_model();
    config.data.train = (directory_ / "tokens").string();
    config.train.steps = kSteps;
    config.train.batch_sequences = 8;
    config.train.micro_batch_sequences = 4;
    config.train.sequence_length = 6;
    config.train.warmup_steps = 2;
    config.checkpoint.every = 0;
    config.run.dir = (directory_ / run).string();
    config.run.progress = "off";
    config.run.experts_every = 1;
    config.parallel.node_sizes = {2, 1};
    return config;
  }

  using Look = std::function<void(ControlPlane&)>;
  /// Trains; `before` and `after` see rank 0's control plane.
  void train(const Config& config, const Look& before = {}, const Look& after = {}) {
    const SteadyClock clock;
    run_local_ranks(kRanks, [&](Transport& transport) {
      Metrics metrics;
      Job job{*files_, clock, metrics, transport, stop_};
      Trainer trainer(job, config, {});
      if (before && job.is_root()) {
        before(trainer.control());
      }
      EXPECT_EQ(trainer.run(), kExitOk);
      if (after && job.is_root()) {
        after(trainer.control());
      }
    });
  }

  /// A step that did nothing; returns once the coordinator knows it, as it would in a longer step.
  static void report_empty_step(ControlPlane& control, std::int64_t step) {
    control.begin_step(step);
    control.end_step();
    control.report(
        {.step = step, .result = {}, .times = {}, .sent = {}, .phases = {}, .plans = {}});
    std::int64_t known = control.coordinator() == nullptr ? step : -1;
    while (known < step) {
      std::this_thread::yield();
      control.coordinator()->inspect([&](const JobState& state) { known = state.step(); });
    }
  }

  std::vector<nlohmann::json> lines(const Config& config, const char* file) {
    std::istringstream text(files_->read(Path(config.run.dir) / file));
    std::vector<nlohmann::json> records;
    for (std::string line; std::getline(text, line);) {
      records.push_back(nlohmann::json::parse(line));
    }
    return records;
  }

  /// Of every step, `key`.
  std::vector<double> of_steps(const Config& config, const char* key) {
    std::vector<double> values;
    for (const nlohmann::json& record : lines(config, kMetricsFile)) {
      if (record.contains("loss")) {
        values.push_back(record[key].get<double>());
      }
    }
    return values;
  }

  TemporaryDirectory directory_;
  StopSignal stop_;
  std::unique_ptr<FileSystem> files_;
};

TEST_F(ControlPlaneTest, WhatValidationSendsIsOfNoStep) {
  const Config without = config("without");
  train(without);
  Config with = config("with");
  with.data.valid = with.data.train;
  with.valid.every = 2;
  with.valid.sequences = 16;
  train(with);
  for (const char* key :
       {"loss", "exchange_inter_rows", "exchange_intra_rows", "inter_bytes", "intra_bytes"}) {
    EXPECT_EQ(of_steps(with, key), of_steps(without, key)) << key;
  }
}

TEST_F(ControlPlaneTest, RowsGoAsManyWaysAsTheShapeSays) {
  const auto rows = [&](const Config& config) {
    const std::vector<double> of_step = of_steps(config, "exchange_inter_rows");
    return std::reduce(of_step.begin(), of_step.end());
  };
  const auto ways = [](const Config& config) {
    return job_shape(config, Topology::from_node_sizes(std::vector<int>{2, 1}, kRanks), {}).ways;
  };
  const Config kept = config("kept");
  train(kept);
  Config again = config("again");
  again.train.recompute = "block";
  train(again);
  EXPECT_GT(rows(kept), 0);
  EXPECT_EQ(rows(again) * ways(kept), rows(kept) * ways(again));
}

TEST_F(ControlPlaneTest, ChangesNoBitAndReportsWhatTheLogsSay) {
  const Config without = config("without");
  train(without);
  Config with = config("with");
  with.scheduler.enabled = true;
  std::optional<ReportWindow> window;
  std::vector<int> finished;
  const auto sum_reports = [&](ControlPlane& control) {
    control.coordinator()->inspect([&](const JobState& state) { window.emplace(state.shape()); });
    control.coordinator()->observe(
        [&](int rank, const StepReport& report) { window->add(rank, report); });
  };
  train(with, sum_reports, [&](ControlPlane& control) {
    control.coordinator()->inspect(
        [&](const JobState& state) { finished = state.in_health(RankHealth::finished); });
  });
  const auto expected = lines(without, kMetricsFile);
  const auto actual = lines(with, kMetricsFile);
  ASSERT_EQ(actual.size(), expected.size());
  double inter_rows = 0;
  double intra_rows = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i]["loss"], expected[i]["loss"]);
    EXPECT_EQ(actual[i]["gradient_norm"], expected[i]["gradient_norm"]);
    inter_rows += actual[i]["exchange_inter_rows"].get<double>();
    intra_rows += actual[i]["exchange_intra_rows"].get<double>();
  }

  ASSERT_TRUE(window.has_value());
  EXPECT_EQ(finished.size(), std::size_t{kRanks});
  EXPECT_EQ(window->reports, kRanks * kSteps);
  EXPECT_EQ(window->last_step, kSteps);
  EXPECT_EQ(window->tokens, 8.0 * 6 * kSteps);
  EXPECT_EQ(window->inter_rows, inter_rows);
  EXPECT_EQ(window->intra_rows, intra_rows);
  EXPECT_GT(inter_rows, 0);
  std::vector<double> loads(window->loads.size());
  for (const nlohmann::json& record : lines(with, kExpertsFile)) {
    std::vector<double> flat;
    for (const nlohmann::json& count : record["loads"].flatten()) {
      flat.push_back(count.get<double>());
    }
    ASSERT_EQ(flat.size(), loads.size());
    std::transform(flat.begin(), flat.end(), loads.begin(), loads.begin(), std::plus<>());
  }
  EXPECT_EQ(window->loads, loads);
  // Each rank tells pairs of every tenth step: of each choice of A with each of B.
  EXPECT_GT(std::accumulate(window->co_activation.begin(), window->co_activation.end(), 0.0), 0);
  for (int rank = 0; rank < kRanks; ++rank) {
    EXPECT_GT(window->step_s.at(static_cast<std::size_t>(rank)), 0);
  }
  // What a wait was for, but for those that were for nobody: of a rank's messages to itself.
  const double waited_for =
      std::accumulate(window->waited_for_s.begin(), window->waited_for_s.end(), 0.0);
  EXPECT_GT(waited_for, 0);
  EXPECT_LE(waited_for, std::accumulate(window->wait_s.begin(), window->wait_s.end(), 1e-9));
}

TEST_F(ControlPlaneTest, AllRanksActOnACommandBeforeTheSameStep) {
  Config with = config("commands");
  with.scheduler.enabled = true;
  files_->create_directories(with.run.dir);
  std::mutex mutex;
  std::vector<std::int64_t> acted;
  run_local_ranks(kRanks, [&](Transport& transport) {
    FakeClock clock;
    ControlledRank rank(*files_, clock, transport, stop_, with);
    ControlPlane& control = rank.control;
    if (rank.job.is_root()) {
      files_->write_atomically(Path(with.run.dir) / kCommandFile, "checkpoint\n");
    }
    // However long the command takes: at some step all have it.
    for (std::int64_t step = 1;; ++step) {
      clock.advance(Seconds(1));
      report_empty_step(control, step - 1);
      ControlPlane::Vote votes = control.vote(step);
      const std::vector<std::string> all = all_gather(
          transport, {reinterpret_cast<const char*>(votes.data()), sizeof votes}, {"vote"});
      ControlPlane::Vote sum{};
      for (const std::string& bytes : all) {
        ControlPlane::Vote theirs;
        std::memcpy(theirs.data(), bytes.data(), sizeof theirs);
        std::transform(theirs.begin(), theirs.end(), sum.begin(), sum.begin(), std::plus<>());
      }
      if (const std::optional<Command> command = control.agreed(sum, step)) {
        EXPECT_EQ(command->kind, kCheckpointCommand);
        EXPECT_EQ(command->at_step, step);
        const std::lock_guard lock(mutex);
        acted.push_back(step);
        break;
      }
    }
    barrier(transport);
  });
  EXPECT_EQ(acted, std::vector<std::int64_t>(kRanks, acted.at(0)));
}

TEST_F(ControlPlaneTest, ARankThatDoesNotReachTheCoordinatorIsNamedOnce) {
  Config with = config("unreached");
  with.scheduler.enabled = true;
  with.scheduler.late_s = 0;  // and overdue at once
  files_->create_directories(with.run.dir);
  const SteadyClock clock;
  run_local_ranks(kRanks, [&](Transport& transport) {
    Config mine = with;
    if (transport.rank() == 1) {
      mine.scheduler.address = "127.0.0.2";  // where nobody listens
    }
    ControlledRank rank(*files_, clock, transport, stop_, mine);
    ControlPlane& control = rank.control;
    if (rank.job.is_root()) {
      while (control.coordinator()->standing().overdue != std::vector<int>{1}) {
        std::this_thread::yield();
      }
      for (std::int64_t step = 1; step < 4; ++step) {
        EXPECT_EQ(control.agreed(ControlPlane::Vote{}, step), std::nullopt);
      }
      EXPECT_EQ(rank.said.size(), 1U);
      const std::string expected = fmt::format(
          "control plane: not heard of yet: rank 1 ({}). Their reports are missing, and nobody is "
          "named as a straggler without them. Can their hosts reach rank 0 at 127.0.0.1 port {}?",
          transport.host(), control.coordinator()->port());
      EXPECT_EQ(rank.said.at(0).substr(0, expected.size()), expected);
    }
    barrier(transport);
  });
}

TEST_F(ControlPlaneTest, SaysWhyARunEnded) {
  Config with = config("failing");
  with.scheduler.enabled = true;
  files_->create_directories(with.run.dir);
  const SteadyClock clock;
  run_local_ranks(1, [&](Transport& transport) {
    ControlledRank rank(*files_, clock, transport, stop_, with);
    ControlPlane& control = rank.control;
    const auto registered = [&] {
      bool alive = false;
      control.coordinator()->inspect(
          [&](const JobState& state) { alive = state.health(0) == RankHealth::alive; });
      return alive;
    };
    while (!registered()) {
      std::this_thread::yield();
    }
    EXPECT_THROW(control.run([]() -> int { throw NumericError("the loss is not finite"); }),
                 NumericError);
    std::optional<Goodbye> goodbye;
    while (!goodbye) {
      control.coordinator()->inspect(
          [&](const JobState& state) { goodbye = state.rank(0).goodbye; });
    }
    EXPECT_EQ(goodbye->exit_code, kExitError);
    EXPECT_EQ(goodbye->reason, "the loss is not finite");
  });
}

}  // namespace
}  // namespace cartesian::test
