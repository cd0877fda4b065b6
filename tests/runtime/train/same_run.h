#pragma once
// Whether a training run is the same as another, and as the float64 reference, and whether float32
// has enough digits for it to be.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "base/random.h"
#include "tests/support/tiny_training.h"

namespace cartesian::test {

inline constexpr double kTolerance = 1e-5;
// Terms of a gradient are right to three roundings (seen: 1.9e-7 of the terms, in sums 24 times
// smaller); of a sum that is so much smaller than its terms kTolerance is still left.
inline constexpr double kCancellation = 50;

/// Compares every step of a run of one rank with the reference, from the weights it begins with.
class ReferenceObserver {
 public:
  ReferenceObserver(const TrainingSetup& setup, const SyntheticData& data)
      : setup_(setup), data_(data) {}

  void before_step(ModelRank& rank, std::int64_t step) {
    const auto weights = by_name(rank.parameters(), rank.parameters().weights());
    double loss = 0;
    for_each_micro_batch(step, [&](const ReferenceBatch& batch) {
      auto result = reference_model(setup_.model, weights, batch);
      loss += std::accumulate(result.losses.begin(), result.losses.end(), 0.0);
      smallest_gap_ = std::min(smallest_gap_, result.smallest_gap);
      routing_.push_back(std::move(result.routing));
    });
    losses_.push_back(
        loss / static_cast<double>(setup_.train.batch_sequences * setup_.train.sequence_length));
    if (step == 0) {
      cancellation_ = largest_cancellation(weights);
    }
  }

  /// Whether float32 has enough digits: no choice hangs on rounding, and no gradient loses too
  /// many.
  bool well_conditioned() const { return smallest_gap_ > 1e-5 && cancellation_ < kCancellation; }

  void compare(const TrainingRecord& record) const {
    auto routing = routing_.begin();
    for (std::size_t step = 0; step < record.steps.size(); ++step) {
      EXPECT_NEAR(record.steps[step].result.loss, losses_[step], kTolerance * losses_[step]);
      for (const auto& micro_batch : record.steps[step].experts) {
        for (std::size_t s = 0; s < micro_batch.size(); ++s) {
          for (std::size_t t = 0; t < micro_batch[s].size(); ++t) {
            const std::set<int>& chosen = (*routing)[s].chosen[t];
            ASSERT_EQ(micro_batch[s][t], ExpertSet(chosen.begin(), chosen.end()))
                << "step " << step << ", sub-layer " << s << ", token " << t;
          }
        }
        ++routing;
      }
    }
  }

 private:
  void for_each_micro_batch(std::int64_t step,
                            const std::function<void(const ReferenceBatch&)>& take) const {
    const TrainConfig& train = setup_.train;
    const auto tokens =
        static_cast<std::size_t>(train.micro_batch_sequences * train.sequence_length);
    std::vector<std::int32_t> ids(tokens), targets(tokens);
    std::vector<std::int32_t> starts(setup_.model.document_attention ? tokens : 0);
    for (std::int64_t done = 0; done < train.batch_sequences; done += train.micro_batch_sequences) {
      const std::int64_t first = step * train.batch_sequences + done;
      data_.samples().fill(first, train.micro_batch_sequences, ids, targets);
      if (!starts.empty()) {
        data_.samples().fill_document_starts(first, train.micro_batch_sequences, starts);
      }
      take({.ids = ids,
            .targets = targets,
            .length = train.sequence_length,
            .document_starts = starts,
            .jitter = reference_jitter(train, first * train.sequence_length)});
    }
  }

  /// A mix's bias has a sum over all tokens of terms of either sign: how much larger their absolute
  /// values' sum is than it, in the worst of the mixes.
  double largest_cancellation(const ReferenceWeights<double>& weights) const {
    Tape tape;
    ReferenceWeights<Var> variables;
    for (const auto& [name, values] : weights) {
      for (const double value : values) {
        variables[name].push_back(tape.variable(value));
      }
    }
    Var loss;
    for_each_micro_batch(0, [&](const ReferenceBatch& batch) {
      for (const Var& token : reference_model(setup_.model, variables, batch).losses) {
        loss += token;
      }
    });
    const auto gradients = tape.gradients(loss);
    const auto magnitudes = tape.magnitudes(loss);
    double largest = 0;
    for (const auto& [name, values] : variables) {
      if (name.find("coefficient") != std::string::npos && name.ends_with(".bias")) {
        const std::size_t i = values[0].index();
        largest = std::max(largest, magnitudes[i] / std::abs(gradients[i]));
      }
    }
    return largest;
  }

  const TrainingSetup& setup_;
  const SyntheticData& data_;
  double cancellation_ = 0;
  double smallest_gap_ = std::numeric_limits<double>::infinity();
  std::vector<double> losses_;                          // [steps]
  std::vector<std::vector<ReferenceRouting>> routing_;  // [steps * micro-batches]
};

/// Where the runs are not equal, one sentence each.
inline std::vector<std::string> differences(const TrainingRecord& actual,
                                            const TrainingRecord& expected,
                                            double tolerance = kTolerance) {
  std::vector<std::string> found;
  const auto compare = [&](const std::string& what, double a, double e) {
    if (!(std::abs(a - e) <= tolerance * std::abs(e))) {
      found.push_back(fmt::format("{} is {}, not {}", what, a, e));
    }
  };
  const auto require = [&](bool equal, const std::string& what) {
    if (!equal) {
      found.push_back(what + " differ");
    }
  };
  require(actual.steps.size() == expected.steps.size(), "the numbers of steps");
  for (std::size_t i = 0; i < std::min(actual.steps.size(), expected.steps.size()); ++i) {
    const StepResult& a = actual.steps[i].result;
    const StepResult& e = expected.steps[i].result;
    compare(fmt::format("loss of step {}", i), a.loss, e.loss);
    compare(fmt::format("balance loss of step {}", i), a.balance_loss, e.balance_loss);
    compare(fmt::format("z-loss of step {}", i), a.z_loss, e.z_loss);
    require(a.largest_bias == e.largest_bias, fmt::format("largest biases of step {}", i));
    require(actual.steps[i].experts == expected.steps[i].experts,
            fmt::format("choices of step {}", i));
    for (std::size_t s = 0; s < a.loads.size(); ++s) {
      require(a.loads[s].counts == e.loads[s].counts, fmt::format("loads of step {}", i));
    }
  }
  // Gradients only where both runs have the same weights: later, steep places of the loss magnify
  // rounding (a change of some weights by one part in 4 million moved a later norm by 1e-3).
  compare("gradient norm", actual.steps[0].result.gradient_norm,
          expected.steps[0].result.gradient_norm);
  for (const auto& [name, values] : expected.steps[0].gradients) {
    const double error = norm_relative_error(actual.steps[0].gradients.at(name), values);
    if (!(error < tolerance)) {
      found.push_back(fmt::format("the gradient of {} is off by {}", name, error));
    }
  }
  return found;
}

/// Changes one weight in sixteen by about a rounding, up or down: as much as another order of sums
/// changes of the arithmetic.
inline void nudge(ParameterStore& store, std::uint64_t key) {
  constexpr float kRounding = 0x1p-23F;
  std::uint64_t i = 0;
  for (float& weight : store.weights()) {
    const std::uint64_t bits = random_bits(key, i++);
    if (bits % 16 == 0) {
      weight *= (bits & 16U) == 0 ? 1 + kRounding : 1 - kRounding;
    }
  }
}

/// Whether float32 has enough digits for the run to be the same wherever it is rounded: it hardly
/// changes with its initial weights. Where gradients vanish it does, since of what rounding makes
/// of them AdamW makes steps as large as of any.
inline bool is_steady(const TrainingRecord& record, const TrainingSetup& setup,
                      const SyntheticData& data) {
  constexpr std::uint64_t kNudges = 3;
  for (std::uint64_t key = 1; key <= kNudges; ++key) {
    TrainingSetup nudged = setup;
    nudged.adjust_weights = [&](ParameterStore& store) {
      if (setup.adjust_weights) {
        setup.adjust_weights(store);
      }
      nudge(store, key);
    };
    if (!differences(train(nudged, data), record, kTolerance).empty()) {
      return false;
    }
  }
  return true;
}

inline void expect_same_bits(const TrainingRecord& a, const TrainingRecord& b) {
  for (std::size_t i = 0; i < a.steps.size(); ++i) {
    EXPECT_EQ(a.steps[i].result.loss, b.steps[i].result.loss);
  }
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.first_moments, b.first_moments);
  EXPECT_EQ(a.second_moments, b.second_moments);
}

}  // namespace cartesian::test
