#include "kernels/rms_norm.h"

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

constexpr float kEps = 1e-6F;

Doubles reference(const Doubles& x, const Doubles& weight) {
  const std::size_t hidden = weight.size();
  Doubles y(x.size());
  for (std::size_t begin = 0; begin < x.size(); begin += hidden) {
    double squares = 0;
    for (std::size_t c = 0; c < hidden; ++c) {
      squares += x[begin + c] * x[begin + c];
    }
    const double rms = std::sqrt(squares / static_cast<double>(hidden) + double{kEps});
    for (std::size_t c = 0; c < hidden; ++c) {
      y[begin + c] = weight[c] * x[begin + c] / rms;
    }
  }
  return y;
}

using Param = std::tuple<Device, DType, std::pair<int, int>>;

class RmsNorm : public testing::TestWithParam<Param> {
 protected:
  Device device = std::get<0>(GetParam());
  DType dtype = std::get<1>(GetParam());
  std::int64_t rows = std::get<2>(GetParam()).first;
  std::int64_t hidden = std::get<2>(GetParam()).second;
  HostTensor x = HostTensor::random(dtype, {rows, hidden}, 1, 3);
  HostTensor weight = HostTensor::random(DType::f32, {hidden}, 2);
  HostTensor y{dtype, {rows, hidden}};
  HostTensor inv_rms{DType::f32, {rows}};

  void forward(OpHarness& harness) {
    const Tensor out = harness.send(y);
    const Tensor inverse = harness.send(inv_rms);
    rms_norm_forward(harness, harness.send(x), harness.send(weight), kEps, out, inverse);
    harness.fetch(out, y);
    harness.fetch(inverse, inv_rms);
  }
  void backward(OpHarness& harness, HostTensor& dy, HostTensor& dx, HostTensor& dweight) {
    const Tensor out = harness.send(dx);
    const Tensor sums = harness.send(dweight);
    rms_norm_backward(harness, harness.send(x), harness.send(weight), harness.send(inv_rms),
                      harness.send(dy), out, sums);
    harness.fetch(out, dx);
    harness.fetch(sums, dweight);
  }
};

TEST_P(RmsNorm, Forward) {
  CARTESIAN_SKIP_WITHOUT(device);
  OpHarness harness(2, device);
  forward(harness);
  expect_close(y.values(), reference(x.values(), weight.values()), tolerance_of(dtype, 2e-6));
}

TEST_P(RmsNorm, BackwardAddsTheGradients) {
  CARTESIAN_SKIP_WITHOUT(device);
  OpHarness harness(2, device);
  forward(harness);
  HostTensor dy = HostTensor::random(dtype, {rows, hidden}, 3);
  HostTensor dx = HostTensor::random(dtype, {rows, hidden}, 4);
  HostTensor dweight = HostTensor::random(DType::f32, {hidden}, 5);
  const Doubles x_start = dx.values();
  const Doubles weight_start = dweight.values();
  backward(harness, dy, dx, dweight);
  const Doubles at_x = x.values();
  const Doubles at_weight = weight.values();
  const Doubles d = dy.values();
  // What was there before is part of the objective: its derivative is the starting value.
  expect_gradient(
      dx.values(),
      [&](const Doubles& v) { return dot(d, reference(v, at_weight)) + dot(x_start, v); }, at_x,
      tolerance_of(dtype), 60);
  expect_gradient(
      dweight.values(),
      [&](const Doubles& v) { return dot(d, reference(at_x, v)) + dot(weight_start, v); },
      at_weight, 1e-5, 60);
}

TEST_P(RmsNorm, RepeatsBitForBit) {
  CARTESIAN_SKIP_WITHOUT(device);
  std::vector<std::vector<HostTensor>> runs;
  for (const int threads : {1, 2, 3}) {
    OpHarness harness(threads, device);
    forward(harness);
    HostTensor dy = HostTensor::random(dtype, {rows, hidden}, 6);
    HostTensor dx(dtype, {rows, hidden});
    HostTensor dweight(DType::f32, {hidden});
    backward(harness, dy, dx, dweight);
    runs.push_back({y, inv_rms, dx, dweight});
  }
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_EQ(runs[0], runs[2]);
}

TEST_P(RmsNorm, ZeroRowsOfInputStayFinite) {
  CARTESIAN_SKIP_WITHOUT(device);
  OpHarness harness(1, device);
  x = HostTensor(dtype, {rows, hidden});
  forward(harness);
  EXPECT_EQ(y.values(), Doubles(y.size()));
}

std::string name_of_case(const testing::TestParamInfo<Param>& info) {
  const auto& [device, dtype, size] = info.param;
  return name_of_device(device) + "_" + std::string(name_of(dtype)) + "_" +
         std::to_string(size.first) + "x" + std::to_string(size.second);
}

INSTANTIATE_TEST_SUITE_P(Sizes, RmsNorm,
                         testing::Combine(testing::Values(Device::cpu, Device::cuda),
                                          testing::Values(DType::f32, DType::bf16),
                                          testing::Values(std::pair{0, 8}, std::pair{1, 1},
                                                          std::pair{3, 17}, std::pair{129, 64},
                                                          std::pair{70, 1030})),
                         name_of_case);

}  // namespace
}  // namespace cartesian::test
