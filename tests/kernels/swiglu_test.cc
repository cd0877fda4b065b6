#include "kernels/swiglu.h"

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

struct Size {
  std::int64_t rows;
  std::int64_t width;
};

double silu(double x) { return x / (1 + std::exp(-x)); }

Doubles reference(const Doubles& gate_up, const Doubles& weights, const Size& s) {
  Doubles a;
  for (std::int64_t t = 0; t < s.rows; ++t) {
    for (std::int64_t c = 0; c < s.width; ++c) {
      const auto gate = static_cast<std::size_t>(t * 2 * s.width + c);
      const auto up = gate + static_cast<std::size_t>(s.width);
      a.push_back(weights[static_cast<std::size_t>(t)] * silu(gate_up[gate]) * gate_up[up]);
    }
  }
  return a;
}

class Swiglu : public testing::TestWithParam<std::tuple<DType, Size, bool>> {
 protected:
  DType dtype = std::get<0>(GetParam());
  Size size = std::get<1>(GetParam());
  bool weighted = std::get<2>(GetParam());
  HostTensor gate_up = HostTensor::random(dtype, {size.rows, 2 * size.width}, 1, 2);
  HostTensor da = HostTensor::random(dtype, {size.rows, size.width}, 2);
  HostTensor random_weights = HostTensor::random(DType::f32, {size.rows}, 3);
  Tensor weights = weighted ? random_weights.tensor() : Tensor();
  Doubles weight_values =
      weighted ? random_weights.values() : Doubles(static_cast<std::size_t>(size.rows), 1.0);
};

TEST_P(Swiglu, ForwardMatchesTheFormula) {
  OpHarness harness(2);
  HostTensor a(dtype, {size.rows, size.width});
  swiglu_forward(harness, gate_up, weights, a);
  expect_close(a.values(), reference(gate_up.values(), weight_values, size),
               tolerance_of(dtype, 1e-6));
}

TEST_P(Swiglu, BackwardMatchesFiniteDifferences) {
  OpHarness harness(2);
  HostTensor forward(dtype, {size.rows, size.width});
  swiglu_forward(harness, gate_up, weights, forward);
  HostTensor dgate_up(dtype, {size.rows, 2 * size.width});
  HostTensor a(dtype, {size.rows, size.width});
  HostTensor dweights(DType::f32, {size.rows});
  swiglu_backward(harness, gate_up, weights, da, dgate_up, a,
                  weighted ? dweights.tensor() : Tensor());
  EXPECT_TRUE(a == forward);
  const Doubles gradient = da.values();
  expect_gradient(
      dgate_up.values(),
      [&](const Doubles& in) { return dot(gradient, reference(in, weight_values, size)); },
      gate_up.values(), tolerance_of(dtype, 2e-6));
  if (weighted) {
    expect_gradient(
        dweights.values(),
        [&](const Doubles& w) { return dot(gradient, reference(gate_up.values(), w, size)); },
        weight_values, 1e-5);
  }
  HostTensor in_place = gate_up;
  swiglu_backward(harness, in_place, weights, da, in_place, a,
                  weighted ? dweights.tensor() : Tensor());
  EXPECT_TRUE(in_place == dgate_up);
}

TEST_P(Swiglu, HasTheSameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([&](const Context& context) {
    std::vector<HostTensor> results{{dtype, {size.rows, 2 * size.width}},
                                    {dtype, {size.rows, size.width}},
                                    {DType::f32, {size.rows}}};
    swiglu_backward(context, gate_up, weights, da, results[0], results[1],
                    weighted ? results[2].tensor() : Tensor());
    return results;
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, Swiglu,
                         testing::Combine(testing::Values(DType::f32, DType::bf16),
                                          testing::Values(Size{0, 8}, Size{1, 1}, Size{3, 17},
                                                          Size{5, 64}, Size{131, 97}),
                                          testing::Bool()),
                         [](const auto& test) {
                           const Size& s = std::get<1>(test.param);
                           return std::string(name_of(std::get<0>(test.param))) + "_" +
                                  std::to_string(s.rows) + "x" + std::to_string(s.width) +
                                  (std::get<2>(test.param) ? "_weighted" : "");
                         });

TEST(Swiglu, StaysFiniteForLargeGates) {
  OpHarness harness;
  HostTensor gate_up(DType::f32, {1, 4}, {200, -200, 3, 3});
  HostTensor da(DType::f32, {1, 2}, {1, 1});
  HostTensor a(DType::f32, {1, 2});
  HostTensor dgate_up(DType::f32, {1, 4});
  swiglu_backward(harness, gate_up, {}, da, dgate_up, a, {});
  EXPECT_EQ(a.values(), (Doubles{600, 0}));
  EXPECT_EQ(dgate_up.values(), (Doubles{3, 0, 200, 0}));
}

}  // namespace
}  // namespace cartesian::test
