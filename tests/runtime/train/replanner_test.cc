// Re-planning while training runs: plans are made, adopted in portions, rejected or lost, and the
// losses are those of a run without.

#include "runtime/train/replanner.h"

#include <gtest/gtest.h>

#include <mutex>

#include "comm/collectives.h"
#include "comm/local_transport.h"
#include "runtime/train/slowed_cluster.h"
#include "tests/support/tiny_training.h"

namespace cartesian::test {
namespace {

constexpr double kExpertBytes = 3.0 * 4 * 3 * 8 * 6;  // of tiny_model()

TrainingSetup on_two_nodes() {
  TrainingSetup setup;
  setup.ranks = 4;
  setup.node_sizes = {2, 2};
  setup.model.num_experts = 8;
  setup.train = tiny_train();
  setup.train.eps = 1e-5;
  return setup;
}

/// Between nodes so slow that moving experts pays, if anything does.
Cluster slow_links(const Topology& topology) {
  Cluster cluster = uniform_cluster(1, 1);
  cluster.topology = topology;
  cluster.inter = {.bytes_per_s = 1e6, .latency_s = 1e-6};
  return cluster;
}

struct Outcome {
  std::vector<double> losses;
  std::vector<ReplanNews> news;  ///< of rank 0
  PlanCounts counts;
};

/// Trains, hearing of every plan one step after its window's end. `request_at`: before this step's
/// after_step(), or -1. `slow_from` likewise: from then on `slow` are stragglers.
Outcome run(const TrainingSetup& setup, const ReplanConfig& config,
            const std::function<Cluster(const Topology&)>& cluster_of, std::int64_t request_at = -1,
            std::int64_t slow_from = -1, const std::vector<Straggler>& slow = {}) {
  const SyntheticData data(setup.model.vocab_size, 1000, setup.train.sequence_length, 1);
  Outcome outcome;
  std::mutex mutex;  // guards outcome
  with_ranks(setup, [&](ModelRank& rank) {
    Replanner replanner(config, setup.train, rank, cluster_of(rank.topology()),
                        most_slots(rank.placement()));
    rank.context().on_route = [&](const RoutedChunk& chunk) { replanner.route(chunk); };
    TrainingStep training(setup.train, rank, data.samples());
    for (std::int64_t step = 0; step < setup.train.steps; ++step) {
      const double loss = training.run(step).loss;
      const bool planning = replanner.planning();
      if (planning) {
        wait_patiently(rank.transport(), {"planner"},
                       [&] { return rank.transport().rank() != 0 || replanner.ready(); });
      }
      if (step == request_at) {
        replanner.request();
      }
      if (step == slow_from) {
        replanner.set_stragglers(slow);
      }
      const ReplanNews news = replanner.after_step(step + 1, planning);
      if (rank.transport().rank() == 0) {
        const std::lock_guard lock(mutex);
        outcome.losses.push_back(loss);
        outcome.news.push_back(news);
      } else {
        EXPECT_TRUE(news.message.empty());
      }
    }
    if (rank.transport().rank() == 0) {
      const std::lock_guard lock(mutex);
      outcome.counts = replanner.counts();
      EXPECT_EQ(outcome.counts.version, outcome.counts.adopted);
    }
  });
  return outcome;
}

void expect_same_losses(const Outcome& actual, const Outcome& expected) {
  ASSERT_EQ(actual.losses.size(), expected.losses.size());
  for (std::size_t i = 0; i < expected.losses.size(); ++i) {
    EXPECT_NEAR(actual.losses[i], expected.losses[i], 1e-5 * expected.losses[i]) << "step " << i;
  }
}

TEST(ReplannerTest, PlansAreAdoptedInPortionsAndTheLossIsTheSame) {
  const TrainingSetup setup = on_two_nodes();
  const Outcome off = run(setup, {}, slow_links);
  EXPECT_EQ(off.counts.migrated_bytes, 0);
  const Outcome replanned = run(setup,
                                {.when = "every",
                                 .every = 4,
                                 .bytes_per_step = static_cast<std::int64_t>(2 * kExpertBytes),
                                 .horizon_steps = 1'000'000,
                                 .time_budget_s = 0.05,
                                 .topology = {}},
                                slow_links);
  EXPECT_GT(replanned.counts.adopted, 0);
  EXPECT_EQ(replanned.counts.failed, 0);
  double moved = 0;
  for (const ReplanNews& news : replanned.news) {
    if (news.moved) {
      moved += news.record["moved_bytes"].get<double>();
      EXPECT_FALSE(news.record["moved_replicas"].get<int>() == 0);
    }
  }
  EXPECT_GT(moved, 0);
  EXPECT_EQ(moved, replanned.counts.migrated_bytes);
  expect_same_losses(replanned, off);
}

/// Nothing else tells later why a plan was not adopted.
TEST(ReplannerTest, RecordsOfPlansSayWhetherMovingPays) {
  constexpr int kHorizon = 1'000'000;
  TrainingSetup setup = on_two_nodes();
  setup.train.steps = 40;
  const Outcome outcome = run(setup,
                              {.when = "every",
                               .every = 4,
                               .horizon_steps = kHorizon,
                               .time_budget_s = 0.05,
                               .topology = {}},
                              slow_links);
  int plans = 0;
  for (const ReplanNews& news : outcome.news) {
    if (!news.record.contains("plan")) {
      continue;
    }
    ++plans;
    const double saved = news.record["plan_step_s_before"].get<double>() -
                         news.record["plan_step_s_after"].get<double>();
    const double moving = news.record["plan_moving_s"];
    EXPECT_GE(moving, 0);
    if (news.record["plan"] == "adopted") {
      EXPECT_GT(saved, 0) << news.record;
      EXPECT_GE(saved * kHorizon, moving) << news.record;
    } else {
      EXPECT_LE(saved * kHorizon, moving) << news.record;
    }
  }
  EXPECT_GT(plans, 0);
}

/// What became of each window.
std::vector<std::string> outcomes(const Outcome& outcome) {
  std::vector<std::string> names;
  for (const ReplanNews& news : outcome.news) {
    if (news.record.contains("plan")) {
      names.push_back(news.record["plan"]);
    }
  }
  return names;
}

TEST(ReplannerTest, AutoLeavesAloneWhatIsAsGoodAsPromised) {
  TrainingSetup setup = on_two_nodes();
  setup.train.learning_rate = 0;  // what tokens choose stays the same
  setup.train.min_learning_rate = 0;
  setup.train.steps = 60;
  const auto outcomes_with = [&](const char* when) {
    return outcomes(run(setup,
                        {.when = when,
                         .every = 12,
                         .horizon_steps = 1'000'000,
                         .time_budget_s = 0.05,
                         .topology = {}},
                        slow_links));
  };
  const std::vector<std::string> automatic = outcomes_with("auto");
  ASSERT_GT(automatic.size(), 2U);
  EXPECT_NE(automatic[0], "not needed");  // nothing was promised
  EXPECT_TRUE(std::ranges::count(automatic, "not needed") > 0) << testing::PrintToString(automatic);
  const std::vector<std::string> every = outcomes_with("every");
  EXPECT_EQ(std::ranges::count(every, "not needed"), 0);
}

TEST(ReplannerTest, AutoPlansAnewForStragglers) {
  TrainingSetup setup = on_two_nodes();
  setup.train.learning_rate = 0;  // what tokens choose stays the same
  setup.train.min_learning_rate = 0;
  setup.train.steps = 60;
  const Outcome outcome = run(setup,
                              {.when = "auto",
                               .every = 10,
                               .bytes_per_step = 1 << 20,
                               .horizon_steps = 1'000'000,
                               .time_budget_s = 0.05,
                               .topology = {}},
                              [](const Topology& topology) {
                                Cluster cluster = slow_links(topology);
                                cluster.inter.bytes_per_s = 1e12;  // computing is what takes time
                                cluster.flops = 1e3;
                                return cluster;
                              },
                              /*request_at=*/-1, /*slow_from=*/35,
                              {{.kind = Straggler::Kind::rank, .number = 1, .factor = 4}});
  std::vector<nlohmann::ordered_json> plans;
  for (const ReplanNews& news : outcome.news) {
    if (news.record.contains("plan")) {
      plans.push_back(news.record);
    }
  }
  const auto aware =
      std::ranges::find_if(plans, [](const auto& plan) { return plan.contains("slow_ranks"); });
  ASSERT_NE(aware, plans.end()) << testing::PrintToString(outcomes(outcome));
  EXPECT_EQ((*aware)["slow_ranks"], nlohmann::ordered_json::array({1}));
  EXPECT_EQ((*aware)["plan"], "adopted");
  EXPECT_GT((*aware)["plan_imbalance_after"],
            (*aware)["plan_imbalance_before"]);  // rank 1 has less
  EXPECT_GE((*aware)["step"].get<std::int64_t>(), 36);
}

TEST(SlowedClusterTest, StragglersAreSlowerByTheirFactorsUpToEight) {
  Cluster cluster = uniform_cluster(2, 2);
  cluster.card_speeds = {1, 0.5};
  const Cluster slow =
      slowed(cluster, std::vector<Straggler>{
                          {.kind = Straggler::Kind::rank, .number = 3, .factor = 2},
                          {.kind = Straggler::Kind::link, .number = 1, .factor = 4},
                          {.kind = Straggler::Kind::link, .number = 0, .factor = 99},
                      });
  EXPECT_EQ(slow.rank_speeds, (std::vector<double>{1, 1, 1, 0.5}));
  EXPECT_EQ(slow.card_speeds, (std::vector<double>{0.125, 0.25}));
  EXPECT_EQ(slowed(cluster, {}).card_speeds, cluster.card_speeds);
  EXPECT_TRUE(slowed(cluster, {}).rank_speeds.empty());
}

TEST(ReplannerTest, AutoPlansAnewWhenTokensChooseOtherExperts) {
  TrainingSetup setup = on_two_nodes();
  setup.train.steps = 60;
  setup.train.learning_rate = 0.05;  // choices change all the time
  setup.train.min_learning_rate = 0.05;
  const std::vector<std::string> automatic = outcomes(run(setup,
                                                          {.when = "auto",
                                                           .every = 5,
                                                           .horizon_steps = 1'000'000,
                                                           .time_budget_s = 0.05,
                                                           .topology = {}},
                                                          slow_links));
  EXPECT_GT(std::ranges::count(automatic, "adopted"), 1) << testing::PrintToString(automatic);
}

TEST(ReplannerTest, APlannerThatThrowsCostsThePlanNotTheRun) {
  TrainingSetup setup = on_two_nodes();
  setup.train.steps = 6;
  const Outcome off = run(setup, {}, slow_links);
  const Outcome failed =
      run(setup, {.when = "every", .every = 2, .time_budget_s = 0.05, .topology = {}},
          [](const Topology& topology) {
            Cluster cluster = slow_links(topology);
            cluster.memory_bytes = 1;
            return cluster;
          });
  EXPECT_EQ(failed.counts.failed, 2);
  EXPECT_EQ(failed.counts.adopted, 0);
  EXPECT_NE(failed.news[2].message.find("step 3: planning failed: "), std::string::npos)
      << failed.news[2].message;
  EXPECT_EQ(failed.losses, off.losses);
}

TEST(ReplannerTest, ARequestEndsTheWindow) {
  TrainingSetup setup = on_two_nodes();
  setup.train.steps = 6;
  const ReplanConfig config{.when = "auto",
                            .every = 40,
                            .horizon_steps = 1'000'000,
                            .time_budget_s = 0.05,
                            .topology = {}};
  const Outcome outcome = run(setup, config, slow_links, /*request_at=*/2);
  EXPECT_EQ(outcome.counts.adopted + outcome.counts.rejected, 1);
  EXPECT_FALSE(outcome.news[3].message.empty());
}

TEST(ReplannerTest, OffPlansWhenAskedAndThenNoMore) {
  TrainingSetup setup = on_two_nodes();
  setup.train.steps = 16;
  const ReplanConfig config{
      .when = "off", .every = 3, .horizon_steps = 1'000'000, .time_budget_s = 0.05, .topology = {}};
  const Outcome outcome = run(setup, config, slow_links, /*request_at=*/2);
  EXPECT_EQ(outcomes(outcome).size(), 1U);
  EXPECT_TRUE(outcome.news[5].record.contains("plan"));  // steps 3, 4 and 5 are the window
}

TEST(ReplannerTest, OneRankHasNothingToPlan) {
  TrainingSetup setup = on_two_nodes();
  setup.ranks = 1;
  setup.node_sizes = {};
  setup.train.steps = 4;
  const Outcome outcome =
      run(setup, {.when = "every", .every = 1, .time_budget_s = 0.05, .topology = {}}, slow_links);
  EXPECT_EQ(outcome.counts.adopted + outcome.counts.rejected + outcome.counts.failed, 0);
}

/// The trace of two steps' sample.
RoutingTrace sample_of(int ranks, std::int64_t every) {
  TrainingSetup setup = on_two_nodes();
  setup.ranks = ranks;
  setup.node_sizes = {};
  setup.train.micro_batch_sequences = 4;
  const SyntheticData data(setup.model.vocab_size, 1000, setup.train.sequence_length, 1);
  RoutingTrace trace;
  with_ranks(setup, [&](ModelRank& rank) {
    RoutingSample sample(setup.model, DType::f32, 1, every);
    rank.context().on_route = [&](const RoutedChunk& chunk) {
      sample.route(chunk, rank.context().training.first_token);
    };
    TrainingStep training(setup.train, rank, data.samples());
    training.run(0);
    training.run(1);
    RoutingTrace taken = sample.take(rank.transport());
    if (rank.transport().rank() == 0) {
      trace = std::move(taken);
    } else {
      EXPECT_EQ(taken.tokens, 0);
    }
  });
  return trace;
}

TEST(RoutingSampleTest, IsTheSameOnAnyNumberOfRanks) {
  const RoutingTrace one = sample_of(1, 3);
  EXPECT_GT(one.tokens, 16);  // of 96
  EXPECT_LT(one.tokens, 64);
  EXPECT_EQ(sample_of(1, 1).tokens, 96);
  for (const int ranks : {2, 3}) {
    const RoutingTrace many = sample_of(ranks, 3);
    ASSERT_EQ(many.tokens, one.tokens);
    ASSERT_EQ(many.sub_layers.size(), one.sub_layers.size());
    for (std::size_t i = 0; i < one.sub_layers.size(); ++i) {
      EXPECT_EQ(many.sub_layers[i].block, one.sub_layers[i].block);
      EXPECT_EQ(many.sub_layers[i].group, one.sub_layers[i].group);
      EXPECT_EQ(many.sub_layers[i].ids, one.sub_layers[i].ids);
    }
  }
}

TEST(ReplanClusterTest, HasTheJobsNodes) {
  const auto files = make_posix_file_system();
  const Topology topology = Topology::from_node_sizes(std::vector<int>{1, 2}, 3);
  const Cluster cluster = replan_cluster(*files, {}, topology);
  EXPECT_EQ(cluster.topology.nodes(), 2);
  EXPECT_GT(cluster.inter.bytes_per_s, 0);
}

}  // namespace
}  // namespace cartesian::test
