#include "kernels/rows.h"

#include <limits>
#include <optional>

#include "base/index.h"
#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

std::size_t random_below(std::size_t choices, std::uint64_t key, std::size_t i) {
  return random_bits(key, i) % choices;
}

// Rows of a tensor that is `shift` columns wider, behind those: with an odd shift rows are aligned
// to an element and not more, each in its own way.
struct ShiftedRows {
  ShiftedRows(DType type, std::int64_t rows, std::int64_t width, std::int64_t columns_before,
              std::uint64_t key)
      : dtype(type),
        cols(width),
        shift(columns_before),
        host(HostTensor::random(type, {rows, shift + cols}, key)) {}

  void send(OpHarness& harness) {
    sent = harness.send(host);
    addresses = row_targets(sent);
    for (std::byte*& address : addresses) {
      address += as_index(shift) * size_of(dtype);
    }
  }
  // The columns before the rows too: ops must leave them alone.
  const HostTensor& fetch(OpHarness& harness) {
    harness.fetch(sent, host);
    return host;
  }
  std::size_t element(std::size_t row, std::size_t column) const {
    return row * as_index(shift + cols) + as_index(shift) + column;
  }

  DType dtype;
  std::int64_t cols;
  std::int64_t shift;
  HostTensor host;
  Tensor sent;
  std::vector<std::byte*> addresses;
};

using Param = std::tuple<Device, DType, std::pair<int, int>>;

class Rows : public testing::TestWithParam<Param> {
 protected:
  Device device = std::get<0>(GetParam());
  DType dtype = std::get<1>(GetParam());
  std::int64_t rows = std::get<2>(GetParam()).first;
  std::int64_t cols = std::get<2>(GetParam()).second;
  std::size_t row_bytes = as_index(cols) * size_of(dtype);
  std::size_t sources = as_index(rows);
};

constexpr std::size_t kEveryNull = 5;  // every so many targets is null

TEST_P(Rows, CopiesRowsAndZeroes) {
  CARTESIAN_SKIP_WITHOUT(device);
  const std::size_t count = 2 * sources + 1;
  for (const std::int64_t shift : {0, 1}) {
    OpHarness harness(2, device);
    ShiftedRows x(dtype, rows, cols, shift, 1);
    ShiftedRows y(dtype, static_cast<std::int64_t>(count), cols, shift, 2);
    x.send(harness);
    y.send(harness);
    std::vector<const std::byte*> from(count);
    std::vector<std::byte*> to = y.addresses;
    HostTensor expected = y.host;
    const Doubles values = x.host.values();
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t choice = random_below(sources + 2, 3, i);  // a row, none or the target
      from[i] = choice < sources ? x.addresses[choice] : choice == sources ? nullptr : to[i];
      if (i % kEveryNull == kEveryNull - 1) {
        to[i] = nullptr;
      }
      for (std::size_t c = 0; c < as_index(cols) && to[i] != nullptr && choice <= sources; ++c) {
        expected.set(y.element(i, c), choice < sources ? values[x.element(choice, c)] : 0);
      }
    }
    copy_rows(harness, from, to, row_bytes);
    EXPECT_EQ(y.fetch(harness), expected) << "shift " << shift;
  }
}

// What each target is the sum of: rows of x, or the target itself (no value).
using Terms = std::vector<std::optional<std::size_t>>;

// None to five, the target among those of every other one, at any place.
std::vector<Terms> random_terms(std::size_t targets, std::size_t sources) {
  std::vector<Terms> result(targets);
  for (std::size_t i = 0; i < targets; ++i) {
    const std::size_t count = sources == 0 ? 0 : random_below(5, 4, i);
    for (std::size_t j = 0; j < count; ++j) {
      result[i].emplace_back(random_below(sources, 5, 5 * i + j));
    }
    if (i % 2 == 1) {
      const auto place = static_cast<std::ptrdiff_t>(random_below(count + 1, 6, i));
      result[i].insert(result[i].begin() + place, std::nullopt);
    }
  }
  return result;
}

struct SumLists {
  SumLists(const std::vector<Terms>& all, const ShiftedRows& x, const ShiftedRows& y)
      : to(y.addresses) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      for (const std::optional<std::size_t>& term : all[i]) {
        terms.push_back(term ? x.addresses[*term] : y.addresses[i]);
      }
      begins.push_back(static_cast<std::int64_t>(terms.size()));
      if (i % kEveryNull == kEveryNull - 1) {
        to[i] = nullptr;
      }
    }
  }
  std::vector<std::int64_t> begins = std::vector<std::int64_t>(1, 0);
  std::vector<const std::byte*> terms;
  std::vector<std::byte*> to;
};

TEST_P(Rows, SumsInOrderAndRoundsOnce) {
  CARTESIAN_SKIP_WITHOUT(device);
  const std::size_t targets = 2 * sources + 2;
  const std::vector<Terms> all = random_terms(targets, sources);
  for (const std::int64_t shift : {0, 1}) {
    OpHarness harness(2, device);
    ShiftedRows x(dtype, rows, cols, shift, 7);
    ShiftedRows y(dtype, static_cast<std::int64_t>(targets), cols, shift, 8);
    x.send(harness);
    y.send(harness);
    const SumLists lists(all, x, y);
    HostTensor expected = y.host;
    const Doubles from = x.host.values();
    const Doubles old = y.host.values();
    for (std::size_t i = 0; i < targets; ++i) {
      for (std::size_t c = 0; c < as_index(cols) && lists.to[i] != nullptr; ++c) {
        float sum = 0;
        for (const std::optional<std::size_t>& term : all[i]) {
          sum += static_cast<float>(term ? from[x.element(*term, c)] : old[y.element(i, c)]);
        }
        expected.set(y.element(i, c), sum);
      }
    }
    sum_rows(harness, dtype, cols, lists.begins, lists.terms, lists.to);
    EXPECT_EQ(y.fetch(harness), expected) << "shift " << shift;
  }
}

TEST_P(Rows, RepeatsBitForBit) {
  CARTESIAN_SKIP_WITHOUT(device);
  const std::size_t targets = 2 * sources + 2;
  const std::vector<Terms> all = random_terms(targets, sources);
  std::vector<HostTensor> results;
  for (const int threads : {1, 3}) {
    OpHarness harness(threads, device);
    ShiftedRows x(dtype, rows, cols, 0, 9);
    ShiftedRows y(dtype, static_cast<std::int64_t>(targets), cols, 0, 10);
    ShiftedRows z(dtype, static_cast<std::int64_t>(targets), cols, 0, 11);
    for (ShiftedRows* tensor : {&x, &y, &z}) {
      tensor->send(harness);
    }
    const SumLists lists(all, x, y);
    sum_rows(harness, dtype, cols, lists.begins, lists.terms, lists.to);
    copy_rows(harness, row_sources(y.sent), z.addresses, row_bytes);
    results.push_back(z.fetch(harness));
  }
  EXPECT_EQ(results[0], results[1]);
}

std::string name_of_case(const testing::TestParamInfo<Param>& info) {
  const auto& [device, dtype, size] = info.param;
  return name_of_device(device) + "_" + std::string(name_of(dtype)) + "_" +
         std::to_string(size.first) + "x" + std::to_string(size.second);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Rows,
                         testing::Combine(testing::Values(Device::cpu, Device::cuda),
                                          testing::Values(DType::f32, DType::bf16),
                                          testing::Values(std::pair{0, 8}, std::pair{1, 1},
                                                          std::pair{5, 17}, std::pair{33, 64},
                                                          std::pair{20, 65}, std::pair{40, 1030},
                                                          std::pair{5, 4100})),
                         name_of_case);

using ValuesParam = std::tuple<Device, DType>;

class RowValues : public testing::TestWithParam<ValuesParam> {
 protected:
  Device device = std::get<0>(GetParam());
  DType dtype = std::get<1>(GetParam());

  // The sum of the same row `count` times.
  HostTensor sum_of(const Doubles& row, int count) {
    const auto cols = static_cast<std::int64_t>(row.size());
    OpHarness harness(1, device);
    HostTensor x(dtype, {1, cols}, row);
    HostTensor y = HostTensor::random(dtype, {1, cols}, 1);
    const Tensor sent = harness.send(x);
    const Tensor result = harness.send(y);
    const std::vector<std::int64_t> begins{0, count};
    const std::vector<const std::byte*> terms(as_index(count), row_sources(sent)[0]);
    sum_rows(harness, dtype, cols, begins, terms, row_targets(result));
    harness.fetch(result, y);
    return y;
  }
};

// What starts from +0 loses the sign of -0.
TEST_P(RowValues, KeepNegativeZero) {
  CARTESIAN_SKIP_WITHOUT(device);
  const Doubles zeros(19, -0.0);
  for (const int count : {1, 2, 3, 4}) {
    EXPECT_EQ(sum_of(zeros, count), HostTensor(dtype, {1, 19}, zeros)) << count << " terms";
  }
  EXPECT_EQ(sum_of(zeros, 0), HostTensor(dtype, {1, 19}));
}

TEST_P(RowValues, OneTermIsCopiedWhateverItsBits) {
  CARTESIAN_SKIP_WITHOUT(device);
  const Doubles row{-std::numeric_limits<double>::quiet_NaN(),
                    std::numeric_limits<double>::infinity(), 1e-40};
  EXPECT_EQ(sum_of(row, 1), HostTensor(dtype, {1, 3}, row));
}

std::string name_of_values_case(const testing::TestParamInfo<ValuesParam>& info) {
  const auto& [device, dtype] = info.param;
  return name_of_device(device) + "_" + std::string(name_of(dtype));
}

INSTANTIATE_TEST_SUITE_P(Devices, RowValues,
                         testing::Combine(testing::Values(Device::cpu, Device::cuda),
                                          testing::Values(DType::f32, DType::bf16)),
                         name_of_values_case);

TEST(RowLists, MayBeEmpty) {
  OpHarness harness;
  copy_rows(harness, {}, {}, 16);
  sum_rows(harness, DType::f32, 4, std::vector<std::int64_t>{0}, {}, {});
  HostTensor x(DType::f32, {2, 0});
  copy_rows(harness, row_sources(x), row_targets(x), 0);
  sum_rows(harness, DType::f32, 0, std::vector<std::int64_t>{0, 1, 2}, row_sources(x),
           row_targets(x));
}

TEST(RowsDeathTest, SizesMustAgree) {
  OpHarness harness;
  HostTensor x(DType::f32, {2, 4});
  HostTensor y(DType::f32, {3, 4});
  EXPECT_DEATH(copy_rows(harness, row_sources(x), row_targets(y), 16), "a source for every row");
  const auto sum = [&](DType dtype, const std::vector<std::int64_t>& begins) {
    sum_rows(harness, dtype, 4, begins, row_sources(x), row_targets(y));
  };
  EXPECT_DEATH(sum(DType::i32, {0, 1, 1, 2}), "float32 or bfloat16");
  EXPECT_DEATH(sum(DType::f32, {0, 1, 2}), "bounds of every row's terms");
  EXPECT_DEATH(sum(DType::f32, {0, 1, 2, 3}), "bounds within the terms");
  EXPECT_DEATH(sum(DType::f32, {0, 2, 1, 2}), "bounds within the terms");
  EXPECT_DEATH(sum(DType::f32, {-1, 1, 1, 2}), "bounds within the terms");
}

}  // namespace
}  // namespace cartesian::test
