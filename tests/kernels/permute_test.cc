#include "kernels/permute.h"

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

// Many rows from a few, some of them absent (-1).
std::vector<std::int32_t> random_rows(std::int64_t count, std::int64_t rows, std::uint64_t key) {
  std::vector<std::int32_t> result(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < result.size(); ++i) {
    const auto choices = static_cast<std::uint64_t>(rows) + 1;
    result[i] = static_cast<std::int32_t>(random_bits(key, i) % choices) - 1;
  }
  return result;
}

struct Case {
  Device device;
  DType dtype;
  std::int64_t rows;
  std::int64_t hidden;
};

class Permute : public testing::TestWithParam<std::tuple<Device, DType, std::pair<int, int>>> {
 protected:
  Case param() const {
    const auto& [device, dtype, size] = GetParam();
    return {device, dtype, size.first, size.second};
  }
};

TEST_P(Permute, GathersRowsAndZeroes) {
  const Case p = param();
  CARTESIAN_SKIP_WITHOUT(p.device);
  OpHarness harness(2, p.device);
  const std::int64_t count = 2 * p.rows + 1;
  const std::vector<std::int32_t> rows = random_rows(count, p.rows, 1);
  HostTensor x = HostTensor::random(p.dtype, {p.rows, p.hidden}, 2);
  HostTensor source({count}, rows);
  HostTensor y = HostTensor::random(p.dtype, {count, p.hidden}, 3);
  const Tensor result = harness.send(y);
  permute_rows(harness, harness.send(x), harness.send(source), result);
  harness.fetch(result, y);
  HostTensor expected(p.dtype, {count, p.hidden});
  const Doubles from = x.values();
  const auto hidden = static_cast<std::size_t>(p.hidden);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t c = 0; c < hidden && rows[i] >= 0; ++c) {
      expected.set(i * hidden + c, from[static_cast<std::size_t>(rows[i]) * hidden + c]);
    }
  }
  EXPECT_EQ(y, expected);
}

TEST_P(Permute, SumsWeightedRows) {
  const Case p = param();
  CARTESIAN_SKIP_WITHOUT(p.device);
  constexpr std::int64_t kSlots = 3;
  const std::int64_t tokens = p.rows + 2;
  const std::vector<std::int32_t> rows = random_rows(tokens * kSlots, p.rows, 4);
  for (const bool weighted : {true, false}) {
    OpHarness harness(2, p.device);
    HostTensor y = HostTensor::random(p.dtype, {p.rows, p.hidden}, 5);
    HostTensor positions({tokens, kSlots}, rows);
    HostTensor weights = HostTensor::random(DType::f32, {tokens, kSlots}, 6);
    HostTensor out = HostTensor::random(p.dtype, {tokens, p.hidden}, 7);
    const Tensor result = harness.send(out);
    unpermute_rows(harness, harness.send(y), harness.send(positions),
                   weighted ? harness.send(weights) : Tensor(), result);
    harness.fetch(result, out);
    Doubles expected(out.size());
    const Doubles from = y.values();
    const auto hidden = static_cast<std::size_t>(p.hidden);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      for (std::size_t c = 0; c < hidden && rows[i] >= 0; ++c) {
        expected[i / kSlots * hidden + c] += (weighted ? weights.values()[i] : 1) *
                                             from[static_cast<std::size_t>(rows[i]) * hidden + c];
      }
    }
    expect_close(out.values(), expected, tolerance_of(p.dtype, 1e-6));
  }
}

using Param = std::tuple<Device, DType, std::pair<int, int>>;

std::string name_of_case(const testing::TestParamInfo<Param>& info) {
  const auto& [device, dtype, size] = info.param;
  return name_of_device(device) + "_" + std::string(name_of(dtype)) + "_" +
         std::to_string(size.first) + "x" + std::to_string(size.second);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Permute,
                         testing::Combine(testing::Values(Device::cpu, Device::cuda),
                                          testing::Values(DType::f32, DType::bf16),
                                          testing::Values(std::pair{0, 8}, std::pair{1, 1},
                                                          std::pair{5, 7}, std::pair{33, 64},
                                                          std::pair{40, 1030}, std::pair{5, 4100})),
                         name_of_case);

TEST(PermuteRows, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([](OpHarness& harness) {
    HostTensor y = HostTensor::random(DType::bf16, {100, 300}, 8);
    HostTensor positions({50, 4}, random_rows(200, 100, 9));
    HostTensor weights = HostTensor::random(DType::f32, {50, 4}, 10);
    HostTensor out(DType::bf16, {50, 300});
    unpermute_rows(harness, y, positions, weights, out);
    HostTensor source({70}, random_rows(70, 50, 11));
    HostTensor moved(DType::bf16, {70, 300});
    permute_rows(harness, out, source, moved);
    return std::vector<HostTensor>{out, moved};
  });
}

TEST(PermuteDeathTest, RowsMustExist) {
  OpHarness harness;
  HostTensor x(DType::f32, {2, 4});
  HostTensor source({1}, {2});
  HostTensor y(DType::f32, {1, 4});
  EXPECT_DEATH(permute_rows(harness, x, source, y), "out of range");
  HostTensor positions({1, 1}, {2});
  EXPECT_DEATH(unpermute_rows(harness, x, positions, Tensor(), y), "out of range");
}

}  // namespace
}  // namespace cartesian::test
