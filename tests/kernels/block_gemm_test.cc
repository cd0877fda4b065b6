#include "kernels/block_gemm.h"

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

using block_gemm::Order;

struct Sizes {
  std::int64_t m, n, k;
};

/// What gemm_test covers through gemm.h only where oneDNN does not serve the dtype.
class BlockGemm : public testing::TestWithParam<std::tuple<DType, Order, Order, Sizes>> {
 protected:
  DType dtype = std::get<0>(GetParam());
  Order a_order = std::get<1>(GetParam());
  Order b_order = std::get<2>(GetParam());
  Sizes size = std::get<3>(GetParam());
  HostTensor a = operand(a_order, size.m, size.k, 1);
  HostTensor b = operand(b_order, size.k, size.n, 2);

  HostTensor operand(Order order, std::int64_t rows, std::int64_t cols, std::uint64_t key) const {
    return HostTensor::random(dtype, order == Order::plain ? Shape{rows, cols} : Shape{cols, rows},
                              key);
  }

  Doubles expected() const {
    const Doubles left = a.values();
    const Doubles right = b.values();
    Doubles c;
    for (std::int64_t i = 0; i < size.m; ++i) {
      for (std::int64_t j = 0; j < size.n; ++j) {
        double sum = 0;
        for (std::int64_t p = 0; p < size.k; ++p) {
          const std::int64_t of_a = a_order == Order::plain ? i * size.k + p : p * size.m + i;
          const std::int64_t of_b = b_order == Order::plain ? p * size.n + j : j * size.k + p;
          sum += left[static_cast<std::size_t>(of_a)] * right[static_cast<std::size_t>(of_b)];
        }
        c.push_back(sum);
      }
    }
    return c;
  }

  void multiply(const Context& context, HostTensor& c, DType output, bool accumulate) {
    std::vector<float> packed(static_cast<std::size_t>(block_gemm::packed_floats(size.k, size.n)));
    block_gemm::pack(context, b, b_order, dtype, packed.data());
    block_gemm::multiply(context,
                         {.m = size.m,
                          .n = size.n,
                          .k = size.k,
                          .a = dtype,
                          .a_order = a_order,
                          .c = output,
                          .accumulate = accumulate},
                         a.tensor().raw(), packed.data(), c.tensor().raw());
  }
};

TEST_P(BlockGemm, MultipliesAndAccumulates) {
  OpHarness harness(2);
  Doubles result = expected();
  for (const DType output : {DType::f32, DType::bf16}) {
    HostTensor c(output, {size.m, size.n});
    multiply(harness, c, output, false);
    expect_close(c.values(), result, tolerance_of(output));
  }
  HostTensor c = HostTensor::random(DType::f32, {size.m, size.n}, 3);
  const Doubles before = c.values();
  multiply(harness, c, DType::f32, true);
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i] += before[i];
  }
  expect_close(c.values(), result, 1e-5);
}

TEST_P(BlockGemm, HasTheSameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([&](const Context& context) {
    HostTensor c = HostTensor::random(DType::f32, {size.m, size.n}, 3);
    HostTensor rounded(DType::bf16, {size.m, size.n});
    multiply(context, c, DType::f32, true);
    multiply(context, rounded, DType::bf16, false);
    return std::vector<HostTensor>{c, rounded};
  });
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, BlockGemm,
    testing::Combine(testing::Values(DType::f32, DType::bf16),
                     testing::Values(Order::plain, Order::transposed),
                     testing::Values(Order::plain, Order::transposed),
                     testing::Values(Sizes{0, 3, 2}, Sizes{2, 3, 0}, Sizes{1, 1, 1},
                                     Sizes{6, 16, 8}, Sizes{13, 31, 7}, Sizes{97, 33, 257},
                                     Sizes{200, 300, 40})),
    [](const auto& test) {
      const auto name = [](Order order) { return order == Order::plain ? "Plain" : "Transposed"; };
      const Sizes& s = std::get<3>(test.param);
      return std::string(name_of(std::get<0>(test.param))) + name(std::get<1>(test.param)) +
             name(std::get<2>(test.param)) + "_" + std::to_string(s.m) + "x" + std::to_string(s.n) +
             "x" + std::to_string(s.k);
    });

}  // namespace
}  // namespace cartesian::test
