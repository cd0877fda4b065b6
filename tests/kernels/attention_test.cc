#include "kernels/attention.h"

#include "tests/support/op_harness.h"

namespace cartesian::test {
namespace {

struct Size {
  std::int64_t sequences;
  std::int64_t length;
  std::int64_t heads;
  std::int64_t head_dim;
  /// Lengths of documents, over and over through each sequence; empty: causal attention.
  std::vector<std::int64_t> documents = {};

  std::int64_t tokens() const { return sequences * length; }
  /// Where the document of each token begins within its sequence.
  std::vector<std::int32_t> first_keys() const {
    std::vector<std::int32_t> keys;
    for (std::int64_t n = 0; n < sequences; ++n) {
      std::size_t document = static_cast<std::size_t>(n);  // sequences differ
      for (std::int64_t begin = 0; begin < length;) {
        const std::int64_t end =
            documents.empty() ? length
                              : std::min(length, begin + documents[document++ % documents.size()]);
        keys.insert(keys.end(), static_cast<std::size_t>(end - begin),
                    static_cast<std::int32_t>(begin));
        begin = end;
      }
    }
    return keys;
  }
  std::size_t at(std::int64_t token, int which, std::int64_t head) const {
    return static_cast<std::size_t>(((token * 3 + which) * heads + head) * head_dim);
  }
};

struct Results {
  Doubles out;
  Doubles log_sum_exp;
};

double score(const Doubles& qkv, const Size& s, std::int64_t query, std::int64_t key,
             std::int64_t head) {
  double sum = 0;
  for (std::size_t d = 0; d < static_cast<std::size_t>(s.head_dim); ++d) {
    sum += qkv[s.at(query, 0, head) + d] * qkv[s.at(key, 1, head) + d];
  }
  return sum / std::sqrt(static_cast<double>(s.head_dim));
}

// Softmax(Q K^T / sqrt(head_dim), causal, within the document) V, one query at a time.
Results reference(const Doubles& qkv, const Size& s) {
  Results r;
  const std::vector<std::int32_t> first_keys = s.first_keys();
  r.out.resize(static_cast<std::size_t>(s.tokens() * s.heads * s.head_dim));
  r.log_sum_exp.resize(static_cast<std::size_t>(s.tokens() * s.heads));
  for (std::int64_t n = 0; n < s.sequences; ++n) {
    for (std::int64_t h = 0; h < s.heads; ++h) {
      for (std::int64_t t = 0; t < s.length; ++t) {
        const std::int64_t query = n * s.length + t;
        Doubles scores;
        double largest = -HUGE_VAL;
        const std::int64_t first = n * s.length + first_keys[static_cast<std::size_t>(query)];
        for (std::int64_t key = first; key <= query; ++key) {
          scores.push_back(score(qkv, s, query, key, h));
          largest = std::max(largest, scores.back());
        }
        double sum = 0;
        for (double& value : scores) {
          value = std::exp(value - largest);
          sum += value;
        }
        r.log_sum_exp[static_cast<std::size_t>((n * s.heads + h) * s.length + t)] =
            largest + std::log(sum);
        const auto to = static_cast<std::size_t>((query * s.heads + h) * s.head_dim);
        for (std::size_t j = 0; j < scores.size(); ++j) {
          const std::size_t from = s.at(first + static_cast<std::int64_t>(j), 2, h);
          for (std::size_t d = 0; d < static_cast<std::size_t>(s.head_dim); ++d) {
            r.out[to + d] += scores[j] / sum * qkv[from + d];
          }
        }
      }
    }
  }
  return r;
}

struct Tensors {
  Tensors(DType dtype, const Size& size, double spread = 1)
      : s(size),
        qkv(HostTensor::random(dtype, {s.tokens(), 3, s.heads, s.head_dim}, 1, spread)),
        out(dtype, {s.tokens(), s.heads * s.head_dim}),
        log_sum_exp(DType::f32, {s.sequences, s.heads, s.length}),
        dout(HostTensor::random(dtype, {s.tokens(), s.heads * s.head_dim}, 2)),
        dqkv(HostTensor::random(dtype, {s.tokens(), 3, s.heads, s.head_dim}, 3)),
        first_keys({s.tokens()}, s.first_keys()) {}
  AttentionSequences sequences() {
    return {s.length, s.documents.empty() ? Tensor() : first_keys.tensor()};
  }
  void forward(OpHarness& harness) {
    attention_forward(harness, qkv, sequences(), out, log_sum_exp);
  }
  void backward(OpHarness& harness) {
    attention_backward(harness, qkv, sequences(), out, log_sum_exp, dout, dqkv);
  }
  Size s;
  HostTensor qkv;
  HostTensor out;
  HostTensor log_sum_exp;
  HostTensor dout;
  HostTensor dqkv;
  HostTensor first_keys;
};

class Attention : public testing::TestWithParam<std::tuple<DType, Size>> {
 protected:
  DType dtype = std::get<0>(GetParam());
  Size size = std::get<1>(GetParam());
};

TEST_P(Attention, ForwardMatchesTheReference) {
  OpHarness harness(2);
  Tensors t(dtype, size);
  t.forward(harness);
  const Results expected = reference(t.qkv.values(), size);
  expect_close(t.out.values(), expected.out, tolerance_of(dtype, 2e-6));
  expect_close(t.log_sum_exp.values(), expected.log_sum_exp, 2e-6);
}

TEST_P(Attention, BackwardMatchesFiniteDifferences) {
  OpHarness harness(2);
  Tensors t(dtype, size);
  t.forward(harness);
  t.backward(harness);
  const Doubles d = t.dout.values();
  expect_gradient(
      t.dqkv.values(), [&](const Doubles& x) { return dot(d, reference(x, size).out); },
      t.qkv.values(), dtype == DType::bf16 ? 0x1p-6 : 2e-5, 100);
}

TEST_P(Attention, SameBitsForAnyThreads) {
  expect_same_bits_for_any_threads([this](OpHarness& harness) {
    Tensors t(dtype, size);
    t.forward(harness);
    t.backward(harness);
    return std::vector<HostTensor>{t.out, t.log_sum_exp, t.dqkv};
  });
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, Attention,
    testing::Combine(testing::Values(DType::f32, DType::bf16),
                     testing::Values(Size{0, 5, 2, 8}, Size{2, 1, 1, 8}, Size{2, 7, 3, 8},
                                     Size{1, 64, 2, 16}, Size{1, 65, 1, 20}, Size{2, 131, 1, 12},
                                     Size{1, 67, 1, 128}, Size{1, 190, 1, 3},
                                     Size{2, 7, 2, 8, {1, 3}}, Size{2, 131, 2, 12, {5, 64, 20}},
                                     Size{2, 200, 1, 8, {70, 1}}, Size{1, 192, 1, 16, {64}},
                                     Size{1, 100, 1, 8, {100}})));

TEST(AttentionExtremes, LargeScoresStayFinite) {
  OpHarness harness;
  Tensors t(DType::f32, {1, 100, 1, 8}, 300);
  t.forward(harness);
  t.backward(harness);
  expect_close(t.out.values(), reference(t.qkv.values(), t.s).out, 1e-3);
  for (const double value : t.dqkv.values()) {
    ASSERT_TRUE(std::isfinite(value));
  }
}

TEST(AttentionExtremes, LaterTokensDoNotReachEarlierOnes) {
  OpHarness harness;
  Tensors t(DType::f32, {1, 80, 1, 8});
  t.forward(harness);
  const Doubles before = t.out.values();
  for (std::size_t i = t.s.at(70, 0, 0); i < t.qkv.size(); ++i) {
    t.qkv.set(i, 1000);
  }
  t.forward(harness);
  const Doubles after = t.out.values();
  EXPECT_TRUE(std::equal(before.begin(), before.begin() + 70 * 8, after.begin()));
}

TEST(AttentionDeathTest, SequencesMustBeWhole) {
  OpHarness harness;
  Tensors t(DType::f32, {1, 6, 1, 8});
  EXPECT_DEATH(attention_forward(harness, t.qkv, {4, {}}, t.out, t.log_sum_exp), "whole sequences");
}

TEST(AttentionDeathTest, FirstKeysMustBeThoseOfDocuments) {
  OpHarness harness;
  for (const std::vector<std::int32_t>& keys :
       {std::vector{0, 1, 0, 0}, {0, 0, 3, 3}, {0, 0, 0, -1}, {1, 1, 2, 2}}) {
    Tensors t(DType::f32, {1, 4, 1, 8, {4}});
    t.first_keys = HostTensor({4}, keys);
    EXPECT_DEATH(t.forward(harness), "first keys");
  }
}

// Rows [begin, begin + length) of a sequence, as one of their own.
Doubles rows_of(const HostTensor& tensor, std::int64_t begin, std::int64_t length) {
  const Doubles values = tensor.values();
  const std::int64_t cols = tensor.shape().numel() / tensor.shape()[0];
  return {values.begin() + begin * cols, values.begin() + (begin + length) * cols};
}

TEST(AttentionDocuments, AreThoseOfDocumentsRunAlone) {
  OpHarness harness(2);
  Tensors together(DType::f32, {1, 230, 2, 12, {30, 100}});
  together.forward(harness);
  together.backward(harness);
  for (const auto& [begin, length] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {0, 30}, {30, 100}, {130, 30}, {160, 70}}) {
    Tensors alone(DType::f32, {1, length, 2, 12});
    const auto copy = [&, begin = begin, length = length](const HostTensor& from, HostTensor& to) {
      to = HostTensor(DType::f32, to.shape(), rows_of(from, begin, length));
    };
    copy(together.qkv, alone.qkv);
    copy(together.dout, alone.dout);
    alone.forward(harness);
    alone.backward(harness);
    expect_close(rows_of(together.out, begin, length), alone.out.values(), 1e-6);
    expect_close(rows_of(together.dqkv, begin, length), alone.dqkv.values(), 1e-6);
  }
}

TEST(AttentionDocuments, OneDocumentIsCausalAttentionBitForBit) {
  OpHarness harness(2);
  Tensors causal(DType::f32, {2, 150, 2, 12});
  Tensors document(DType::f32, {2, 150, 2, 12, {150}});
  for (Tensors* t : {&causal, &document}) {
    t->forward(harness);
    t->backward(harness);
  }
  EXPECT_TRUE(causal.out == document.out);
  EXPECT_TRUE(causal.log_sum_exp == document.log_sum_exp);
  EXPECT_TRUE(causal.dqkv == document.dqkv);
}

}  // namespace
}  // namespace cartesian::test
