#include "kernels/ffn.h"

#include <numeric>
#include <thread>

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

// y = W_down (w * silu(W_gate h) * (W_up h)) of one row, one scalar at a time.
struct Reference {
  std::int64_t hidden;
  std::int64_t width;

  Doubles row(const double* h, double weight, const Doubles& gate_up, const Doubles& down) const {
    Doubles a;
    for (std::int64_t c = 0; c < width; ++c) {
      double gate = 0;
      double up = 0;
      for (std::int64_t d = 0; d < hidden; ++d) {
        gate += gate_up[static_cast<std::size_t>(c * hidden + d)] * h[d];
        up += gate_up[static_cast<std::size_t>((width + c) * hidden + d)] * h[d];
      }
      a.push_back(weight * gate / (1 + std::exp(-gate)) * up);
    }
    Doubles y(static_cast<std::size_t>(hidden));
    for (std::int64_t d = 0; d < hidden; ++d) {
      for (std::int64_t c = 0; c < width; ++c) {
        y[static_cast<std::size_t>(d)] +=
            down[static_cast<std::size_t>(d * width + c)] * a[static_cast<std::size_t>(c)];
      }
    }
    return y;
  }

  Doubles rows(const Doubles& h, const Doubles& weights, const Doubles& gate_up,
               const Doubles& down) const {
    Doubles y;
    for (std::size_t t = 0; t < weights.size(); ++t) {
      const Doubles out =
          row(h.data() + t * static_cast<std::size_t>(hidden), weights[t], gate_up, down);
      y.insert(y.end(), out.begin(), out.end());
    }
    return y;
  }
};

/// Experts with their weights, a batch for them, and what forward and backward made of it.
struct Case {
  Case(DType dtype_of_case, std::int64_t hidden_size, std::int64_t width_size,
       std::vector<std::int64_t> rows_per_expert, bool with_row_weights)
      : dtype(dtype_of_case), reference{hidden_size, width_size}, weighted(with_row_weights) {
    for (const std::int64_t rows : rows_per_expert) {
      offsets.push_back(offsets.back() + rows);
      const std::uint64_t key = 10 * offsets.size();
      // Scaled so that activations are of order one; values that bfloat16 holds exactly.
      gate_up.push_back(exact({2 * width_size, hidden_size}, key, hidden_size));
      down.push_back(exact({hidden_size, width_size}, key + 1, width_size));
      dgate_up.emplace_back(DType::f32, Shape{2 * width_size, hidden_size});
      ddown.emplace_back(DType::f32, Shape{hidden_size, width_size});
    }
    const std::int64_t rows = offsets.back();
    h = HostTensor::random(dtype, {rows, hidden_size}, 1);
    dy = HostTensor::random(dtype, {rows, hidden_size}, 2);
    row_weights = HostTensor::random(DType::f32, {rows}, 3);
    saved = HostTensor(dtype, {rows, 2 * width_size});
    y = HostTensor(dtype, {rows, hidden_size});
    dh = HostTensor(dtype, {rows, hidden_size});
    drow_weights = HostTensor(DType::f32, {rows});
  }
  static HostTensor exact(Shape shape, std::uint64_t key, std::int64_t fan_in) {
    const double scale = 1 / std::sqrt(static_cast<double>(fan_in));
    return {DType::f32, shape, HostTensor::random(DType::bf16, shape, key, scale).values()};
  }

  void pack(const Context& context) {
    weights.resize(gate_up.size());
    for (std::size_t e = 0; e < weights.size(); ++e) {
      weights[e].gate_up.pack(context, gate_up[e], dtype);
      weights[e].down.pack(context, down[e], dtype);
    }
  }
  void forward(const Context& context, std::span<const FfnWeights> experts) {
    ffn_forward(context, experts, offsets, h, weighted ? row_weights.tensor() : Tensor(), saved, y);
  }
  void backward(const Context& context, std::span<const FfnWeights> experts) {
    std::vector<FfnGradients> gradients;
    for (std::size_t e = 0; e < experts.size(); ++e) {
      gradients.push_back({dgate_up[e], ddown[e]});
    }
    ffn_backward(context, experts, gradients, offsets, h,
                 weighted ? row_weights.tensor() : Tensor(), saved, dy, dh,
                 weighted ? drow_weights.tensor() : Tensor());
  }

  /// The rows of expert e in a tensor of `cols` columns.
  Doubles part(const HostTensor& tensor, std::size_t e, std::int64_t cols) const {
    const Doubles all = tensor.values();
    return {all.begin() + offsets[e] * cols, all.begin() + offsets[e + 1] * cols};
  }
  Doubles weights_of(std::size_t e) const {
    const Doubles ones(static_cast<std::size_t>(offsets[e + 1] - offsets[e]), 1.0);
    return weighted ? part(row_weights, e, 1) : ones;
  }

  DType dtype;
  Reference reference;
  bool weighted;
  std::vector<std::int64_t> offsets{0};
  std::vector<HostTensor> gate_up, down, dgate_up, ddown;
  std::vector<FfnWeights> weights;
  HostTensor h{DType::f32, {0, 0}}, dy = h, row_weights = h, saved = h, y = h, dh = h,
                                    drow_weights = h;
};

/// Forward and backward of each expert against the reference and its finite differences.
void expect_matches_reference(Case& c, double forward_tolerance, double gradient_tolerance) {
  const std::int64_t hidden = c.reference.hidden;
  for (std::size_t e = 0; e < c.weights.size(); ++e) {
    const Doubles h = c.part(c.h, e, hidden);
    const Doubles dy = c.part(c.dy, e, hidden);
    const Doubles weights = c.weights_of(e);
    const Doubles gate_up = c.gate_up[e].values();
    const Doubles down = c.down[e].values();
    const auto loss = [&](const Doubles& x, const Doubles& w, const Doubles& g, const Doubles& d) {
      return dot(dy, c.reference.rows(x, w, g, d));
    };
    expect_close(c.part(c.y, e, hidden), c.reference.rows(h, weights, gate_up, down),
                 forward_tolerance);
    const double tolerance = gradient_tolerance;
    expect_gradient(
        c.part(c.dh, e, hidden), [&](const Doubles& v) { return loss(v, weights, gate_up, down); },
        h, tolerance, 60);
    expect_gradient(
        c.dgate_up[e].values(), [&](const Doubles& v) { return loss(h, weights, v, down); },
        gate_up, tolerance, 60);
    expect_gradient(
        c.ddown[e].values(), [&](const Doubles& v) { return loss(h, weights, gate_up, v); }, down,
        tolerance, 60);
    if (c.weighted) {
      expect_gradient(
          c.part(c.drow_weights, e, 1), [&](const Doubles& v) { return loss(h, v, gate_up, down); },
          weights, tolerance, 60);
    }
  }
}

struct Groups {
  std::string name;
  std::int64_t hidden;
  std::int64_t width;
  std::vector<std::int64_t> rows;
};

class Ffn : public testing::TestWithParam<std::tuple<DType, bool, Groups>> {
 protected:
  DType dtype = std::get<0>(GetParam());
  Case make() const {
    const Groups& groups = std::get<2>(GetParam());
    return {dtype, groups.hidden, groups.width, groups.rows, std::get<1>(GetParam())};
  }
};

TEST_P(Ffn, MatchesTheReferenceAndItsFiniteDifferences) {
  OpHarness harness(2);
  Case c = make();
  c.pack(harness);
  c.forward(harness, c.weights);
  c.backward(harness, c.weights);
  // In bfloat16 three roundings (gate and up, activation, result) of 2^-9 each go into a result,
  // and one more into a gradient, relative to terms that partly cancel.
  expect_matches_reference(c, dtype == DType::bf16 ? 0.02 : 1e-5,
                           dtype == DType::bf16 ? 0.04 : 2e-5);
}

TEST_P(Ffn, HasTheSameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([&](const Context& context) {
    Case c = make();
    c.pack(context);
    c.forward(context, c.weights);
    c.backward(context, c.weights);
    std::vector<HostTensor> results{c.y, c.dh, c.drow_weights};
    results.insert(results.end(), c.dgate_up.begin(), c.dgate_up.end());
    results.insert(results.end(), c.ddown.begin(), c.ddown.end());
    return results;
  });
}

TEST_P(Ffn, AccumulatesWeightGradients) {
  OpHarness harness;
  Case c = make();
  c.pack(harness);
  c.forward(harness, c.weights);
  c.backward(harness, c.weights);
  const std::vector<HostTensor> once = c.ddown;
  c.forward(harness, c.weights);
  c.backward(harness, c.weights);
  for (std::size_t e = 0; e < once.size(); ++e) {
    Doubles twice = once[e].values();
    for (double& value : twice) {
      value *= 2;
    }
    expect_close(c.ddown[e].values(), twice, 1e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Groups, Ffn,
                         testing::Combine(testing::Values(DType::f32, DType::bf16), testing::Bool(),
                                          testing::Values(Groups{"one", 16, 24, {32}},
                                                          Groups{"primes", 13, 7, {5, 1, 0, 3}},
                                                          Groups{"all_to_one", 16, 8, {0, 48, 0}},
                                                          Groups{"no_rows", 8, 8, {0, 0}},
                                                          Groups{"pieces", 4, 3, {1100, 2}},
                                                          Groups{"wide", 32, 61, {1, 17}})),
                         [](const auto& test) {
                           return std::get<2>(test.param).name + "_" +
                                  std::string(name_of(std::get<0>(test.param))) +
                                  (std::get<1>(test.param) ? "_weighted" : "");
                         });

TEST(Ffn, LeavesRowsOutsideItsGroupsAlone) {
  OpHarness harness;
  Case c(DType::f32, 8, 8, {4, 2, 3}, true);
  c.pack(harness);
  const std::vector<std::int64_t> inner{c.offsets[1], c.offsets[2]};
  for (std::size_t i = 0; i < c.y.size(); ++i) {
    c.y.set(i, 9);
  }
  ffn_forward(harness, std::span(c.weights).subspan(1, 1), inner, c.h, c.row_weights, c.saved, c.y);
  for (const std::size_t e : {0U, 2U}) {
    const Doubles untouched = c.part(c.y, e, 8);
    EXPECT_EQ(untouched, Doubles(untouched.size(), 9));
  }
  expect_close(c.part(c.y, 1, 8),
               c.reference.rows(c.part(c.h, 1, 8), c.weights_of(1), c.gate_up[1].values(),
                                c.down[1].values()),
               1e-5);
}

TEST(Ffn, TakesNoMoreScratchAtSteadyLoad) {
  OpHarness harness(2);
  Case c(DType::bf16, 32, 48, {16, 64, 0, 32}, true);
  c.pack(harness);
  Arena& scratch = harness.context().scratch;
  std::int64_t growths = 0;
  for (int step = 0; step < 5; ++step) {
    c.forward(harness, c.weights);
    c.backward(harness, c.weights);
    scratch.reset();
    if (step == 1) {
      growths = scratch.growths();
    }
  }
  EXPECT_EQ(scratch.growths(), growths);
}

TEST(Ffn, ServesTwoRanksWithTheSameWeightsAtOnce) {
  OpHarness owner;
  Case shared(DType::f32, 24, 40, {7, 16, 3}, true);
  shared.pack(owner);
  std::vector<Case> cases;
  for (int rank = 0; rank < 2; ++rank) {
    cases.emplace_back(DType::f32, 24, 40, std::vector<std::int64_t>{7, 16, 3}, true);
  }
  {
    std::vector<std::jthread> ranks;
    for (Case& c : cases) {
      ranks.emplace_back([&c, &shared] {
        OpHarness harness;
        for (int step = 0; step < 20; ++step) {
          c.forward(harness, shared.weights);
          c.backward(harness, shared.weights);
        }
      });
    }
  }
  OpHarness harness;
  for (int step = 0; step < 20; ++step) {
    shared.forward(harness, shared.weights);
    shared.backward(harness, shared.weights);
  }
  for (const Case& c : cases) {
    EXPECT_TRUE(c.y == shared.y && c.dh == shared.dh && c.ddown == shared.ddown &&
                c.dgate_up == shared.dgate_up);
  }
}

}  // namespace
}  // namespace cartesian::test
