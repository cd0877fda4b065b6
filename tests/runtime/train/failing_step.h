#pragma once
// A training step in which the last of four ranks on two nodes fails when it comes to a certain
// group of messages: the exchange of both sub-layers in chunks, forward and backward, sums of
// gradients, of replicated experts too.

#include "tests/runtime/train/failing_transport.h"
#include "tests/support/tiny_training.h"

namespace cartesian::test {

inline constexpr int kFailingRanks = 4;

/// One step to warm up, and the one in which rank 3 calls `fail` at group `at`. Returns the names
/// of the groups' phases on this rank.
inline std::vector<std::string> run_failing_step(Transport& transport, int at,
                                                 const std::function<void()>& fail) {
  TrainingSetup setup;
  setup.ranks = kFailingRanks;
  setup.node_sizes = {2, 2};
  setup.expert_ranks = 2;
  setup.chunks = 2;
  setup.train = tiny_train();
  const SyntheticData data(setup.model.vocab_size, 1000, setup.train.sequence_length, 1);
  const bool fails = transport.rank() == kFailingRanks - 1;
  FailingTransport failing(transport, fails ? at : -1, fail);
  with_rank(setup, failing, [&](ModelRank& rank) {
    TrainingStep step(setup.train, rank, data.samples());
    step.run(0);
    failing.arm();
    step.run(1);
  });
  return failing.phases();
}

}  // namespace cartesian::test
