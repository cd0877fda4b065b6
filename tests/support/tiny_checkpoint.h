#pragma once
// Checkpoints of tiny models, for tests.

#include <string>

#include "comm/local_transport.h"
#include "runtime/checkpoint/checkpoint_reader.h"
#include "runtime/checkpoint/checkpoint_writer.h"
#include "tests/support/tiny_training.h"

namespace cartesian::test {

inline CheckpointInfo info_at(const ModelConfig& model, std::int64_t step) {
  return {.model = model,
          .state = {.step = step,
                    .sequences = step * 8,
                    .seed = 1,
                    .sequence_length = 8,
                    .windows = 100},
          .tokenizer_json = {}};
}

/// A store of `config`'s parameters on the only rank.
struct TinyStore {
  explicit TinyStore(const ModelConfig& config, std::uint64_t seed = 0)
      : model(config, Placement::linear(placement_shape(config, 1), 1), 0, store) {
    if (seed != 0) {
      randomize_weights(store, seed);
      for (std::size_t i = 0; i < store.weights().size(); ++i) {
        store.first_moments()[i] = 2 * store.weights()[i];
        store.second_moments()[i] = store.weights()[i] * store.weights()[i];
      }
    }
  }
  ParameterStore store;
  LanguageModel model;
};

/// Saves on one rank what TinyStore(config, seed) holds, as step `step`.
inline Path save_tiny(FileSystem& files, const Path& directory, const ModelConfig& config,
                      std::int64_t step, std::uint64_t seed, std::int64_t keep_last = 2) {
  Path result;
  run_local_ranks(1, [&](Transport& transport) {
    TinyStore tiny(config, seed);
    CheckpointWriter writer(files, transport, directory);
    writer.begin(tiny.store, info_at(config, step));
    result = writer.commit();
    remove_old_checkpoints(files, directory, keep_last);
  });
  return result;
}

/// Fails the test unless the checkpoint is whole and holds what save_tiny() saved.
inline void expect_tiny(FileSystem& files, const Path& path, const ModelConfig& config,
                        std::int64_t step, std::uint64_t seed) {
  CheckpointReader reader(files, path);
  reader.verify();
  EXPECT_EQ(reader.model(), config);
  ASSERT_TRUE(reader.trainer_state().has_value());
  EXPECT_EQ(reader.trainer_state()->step, step);
  TinyStore loaded(config);
  reader.read_weights(loaded.store);
  reader.read_moments(loaded.store);
  TinyStore expected(config, seed);
  EXPECT_EQ(by_name(loaded.store, loaded.store.weights()),
            by_name(expected.store, expected.store.weights()));
  EXPECT_EQ(by_name(loaded.store, loaded.store.first_moments()),
            by_name(expected.store, expected.store.first_moments()));
  EXPECT_EQ(by_name(loaded.store, loaded.store.second_moments()),
            by_name(expected.store, expected.store.second_moments()));
}

}  // namespace cartesian::test
