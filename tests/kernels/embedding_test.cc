#include "kernels/embedding.h"

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

constexpr std::int64_t kVocabulary = 11;

HostTensor random_ids(std::int64_t tokens) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
  for (std::size_t t = 0; t < ids.size(); ++t) {
    ids[t] = static_cast<std::int32_t>(random_bits(1, t) % kVocabulary);
  }
  return {{tokens}, ids};
}

class Embedding
    : public testing::TestWithParam<std::tuple<DType, std::pair<std::int64_t, std::int64_t>>> {
 protected:
  DType dtype = std::get<0>(GetParam());
  std::int64_t tokens = std::get<1>(GetParam()).first;
  std::int64_t hidden = std::get<1>(GetParam()).second;
  HostTensor ids = random_ids(tokens);
};

TEST_P(Embedding, ForwardCopiesRows) {
  OpHarness harness;
  HostTensor table = HostTensor::random(DType::f32, {kVocabulary, hidden}, 2);
  HostTensor out(dtype, {tokens, hidden});
  embedding_forward(harness, ids, table, out);
  HostTensor expected(dtype, {tokens, hidden});
  const auto width = static_cast<std::size_t>(hidden);
  const Doubles from = table.values();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto id = static_cast<std::size_t>(ids.at<std::int32_t>(i / width));
    expected.set(i, from[id * width + i % width]);
  }
  EXPECT_EQ(out, expected);
}

TEST_P(Embedding, BackwardAddsRowsToTheTable) {
  OpHarness harness;
  HostTensor dout = HostTensor::random(dtype, {tokens, hidden}, 3);
  HostTensor dtable = HostTensor::random(DType::f32, {kVocabulary, hidden}, 4);
  Doubles expected = dtable.values();
  const Doubles from = dout.values();
  const auto width = static_cast<std::size_t>(hidden);
  for (std::size_t i = 0; i < from.size(); ++i) {
    expected[static_cast<std::size_t>(ids.at<std::int32_t>(i / width)) * width + i % width] +=
        from[i];
  }
  embedding_backward(harness, ids, dout, dtable);
  expect_close(dtable.values(), expected, 1e-6);
}

TEST_P(Embedding, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([this](OpHarness& harness) {
    HostTensor dout = HostTensor::random(dtype, {tokens, hidden}, 5);
    HostTensor dtable(DType::f32, {kVocabulary, hidden});
    embedding_backward(harness, ids, dout, dtable);
    return std::vector<HostTensor>{dtable};
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, Embedding,
                         testing::Combine(testing::Values(DType::f32, DType::bf16),
                                          testing::Values(std::pair{0, 5}, std::pair{1, 1},
                                                          std::pair{50, 37}, std::pair{9, 700})));

TEST(EmbeddingDeathTest, IdsMustBeInTheVocabulary) {
  OpHarness harness;
  HostTensor table(DType::f32, {2, 3});
  HostTensor out(DType::f32, {1, 3});
  for (const std::int32_t id : {-1, 2}) {
    HostTensor ids({1}, {id});
    EXPECT_DEATH(embedding_forward(harness, ids, table, out), "outside the vocabulary");
  }
}

}  // namespace
}  // namespace cartesian::test
