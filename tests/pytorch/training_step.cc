// What one training step computes from a checkpoint, for a comparison with PyTorch.
//
//   training_step CHECKPOINT PREFIX OUTPUT LENGTH BALANCE RANKS
//
// takes all windows of LENGTH tokens of PREFIX as one batch and one micro-batch, on RANKS local
// ranks, and writes OUTPUT, a safetensors file: `logits.T` [vocabulary] of every token T, `losses`
// [2] (cross-entropy, balance loss), and `gradient.NAME` of every tensor, after synchronisation and
// before clipping, with BALANCE as the coefficient.

#include "runtime/train/training_step.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <map>
#include <mutex>

#include "base/error.h"
#include "comm/local_transport.h"
#include "runtime/checkpoint/checkpoint_reader.h"
#include "runtime/data/token_file.h"

namespace cartesian::test {
namespace {

struct Arguments {
  Path checkpoint;
  Path tokens;
  Path output;
  std::int64_t length = 0;
  double balance = 0;
  int ranks = 1;
};

/// Tensors by name, from all ranks.
class Results {
 public:
  /// A tensor that another rank has given already must have the same bits.
  void add(const std::string& name, const Shape& shape, std::span<const float> values) {
    const std::lock_guard lock(mutex_);
    const auto [at, inserted] = tensors_.emplace(name, Values{{}, {values.begin(), values.end()}});
    if (!inserted && at->second.values != std::vector<float>(values.begin(), values.end())) {
      throw CommError(fmt::format("{} differs between ranks", name));
    }
    for (int i = 0; inserted && i < shape.rank(); ++i) {
      at->second.shape.push_back(shape[i]);
    }
  }

  void write(FileSystem& files, const Path& path) {
    const std::lock_guard lock(mutex_);
    std::vector<std::pair<std::string, SafetensorsEntry>> entries;
    for (const auto& [name, tensor] : tensors_) {
      entries.emplace_back(name,
                           SafetensorsEntry{.dtype = "F32",
                                            .shape = tensor.shape,
                                            .bytes = std::as_bytes(std::span(tensor.values))});
    }
    const auto file = files.create(path);
    write_safetensors(*file, entries, {});
    file->close();
  }

 private:
  struct Values {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
  };
  std::mutex mutex_;
  std::map<std::string, Values> tensors_;  // guarded by mutex_
};

/// Every token's logits, of the windows that are at home here. predict() gives one row at a time;
/// all ranks take part in each, if only with no tokens.
void add_logits(ModelRank& rank, const TokenWindows& windows, Results& results) {
  const std::int64_t length = windows.length();
  const int ranks = rank.transport().size();
  const auto share = sequences_of_rank(windows.count(), rank.transport().rank(), ranks);
  const std::int64_t rounds = (windows.count() + ranks - 1) / ranks;
  const std::int64_t vocabulary = rank.model().config().vocab_size;
  std::vector<float> logits(static_cast<std::size_t>(vocabulary));
  std::vector<std::int32_t> ids(static_cast<std::size_t>(length));
  std::vector<std::int32_t> targets(ids.size());
  for (std::int64_t i = 0; i < rounds; ++i) {
    const bool here = i < share.count;
    if (here) {
      windows.read(share.first + i, ids, targets);
    }
    const Shape shape{here ? length : 0};
    const std::int64_t first_token = (share.first + i) * length;
    const Batch batch{.ids = Tensor(ids.data(), shape),
                      .targets = Tensor(targets.data(), shape),
                      .length = length,
                      .first_token = first_token};
    for (std::int64_t row = 0; row < length; ++row) {
      rank.model().predict(rank.context(), batch, here ? row : -1,
                           Tensor(logits.data(), {vocabulary}));
      if (here) {
        results.add(fmt::format("logits.{}", first_token + row), {vocabulary}, logits);
      }
    }
  }
}

void run_rank(const Arguments& arguments, Transport& transport, Results& results) {
  const auto files = make_posix_file_system();
  CheckpointReader reader(*files, arguments.checkpoint);
  const Topology topology = Topology::single_node(transport.size());
  const Placement placement = make_placement(*files, reader.model(), {}, topology);
  Metrics metrics;
  const SteadyClock clock;
  ModelRank rank(reader.model(), placement, topology, transport, metrics, clock, {});
  reader.read_weights(rank.parameters());
  rank.pack();

  const TokenFile tokens(*files, arguments.tokens);
  const TokenWindows windows(tokens, arguments.length);
  const SampleOrder samples(windows, /*seed=*/1);
  add_logits(rank, windows, results);

  TrainConfig train;
  train.batch_sequences = windows.count();
  train.micro_batch_sequences = windows.count();
  train.sequence_length = arguments.length;
  train.balance_loss = arguments.balance;
  TrainingStep step(train, rank, samples);
  const StepResult result = step.run(0);
  results.add("losses", {2},
              std::array{static_cast<float>(result.loss), static_cast<float>(result.balance_loss)});
  for (const NamedTensor& tensor : rank.parameters().tensors()) {
    results.add(
        "gradient." + tensor.name, tensor.shape,
        rank.parameters().gradients().subspan(static_cast<std::size_t>(tensor.offset),
                                              static_cast<std::size_t>(tensor.shape.numel())));
  }
}

}  // namespace
}  // namespace cartesian::test

int main(int argc, char** argv) {
  using namespace cartesian;
  const std::span words(argv, static_cast<std::size_t>(argc));
  if (words.size() != 7) {
    fmt::print(stderr, "usage: training_step CHECKPOINT PREFIX OUTPUT LENGTH BALANCE RANKS\n");
    return 2;
  }
  try {
    const test::Arguments arguments{.checkpoint = words[1],
                                    .tokens = words[2],
                                    .output = words[3],
                                    .length = std::stoll(words[4]),
                                    .balance = std::stod(words[5]),
                                    .ranks = std::stoi(words[6])};
    test::Results results;
    run_local_ranks(arguments.ranks,
                    [&](Transport& transport) { test::run_rank(arguments, transport, results); });
    results.write(*make_posix_file_system(), arguments.output);
  } catch (const std::exception& error) {
    fmt::print(stderr, "training_step: {}\n", error.what());
    return 1;
  }
  return 0;
}
