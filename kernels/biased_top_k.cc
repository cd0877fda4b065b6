#include "kernels/biased_top_k.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/dispatch.h"
#include "kernels/parallel.h"
#include "kernels/select_row.h"
#include "kernels/softmax_row.h"

namespace cartesian {

namespace {

constexpr std::int64_t kBlockElements = 4096;
constexpr float kMasked = -std::numeric_limits<float>::infinity();

void check_bias(const Tensor& logits, const Tensor& bias) {
  check(logits.dtype() == DType::f32 && logits.shape().rank() == 2 && bias.dtype() == DType::f32 &&
            bias.numel() == logits.cols(),
        "biased top_k needs float32 logits [tokens, experts] and a bias per expert");
}

/// p = softmax(logits), perhaps in place, and scores = p + bias, or kMasked.
void score_row(const float* logits, const float* bias, std::int64_t count, float* p,
               float* scores) {
  for (std::int64_t e = 0; e < count; ++e) {
    scores[e] = logits[e] == kMasked ? kMasked : bias[e];
  }
  softmax_row(logits, count, p);
  for (std::int64_t e = 0; e < count; ++e) {
    scores[e] += p[e];
  }
}

/// Puts the chosen in order of probability, and their probabilities into `gates`.
void sort_by_probability(const float* p, std::int64_t k, std::int32_t* ids, float* gates) {
  std::sort(ids, ids + k,
            [p](std::int32_t a, std::int32_t b) { return p[a] > p[b] || (p[a] == p[b] && a < b); });
  for (std::int64_t j = 0; j < k; ++j) {
    gates[j] = p[ids[j]];
  }
}

/// The bias may choose experts whose probabilities all round to zero: these share the token evenly.
void gates_of_row(float* gates, std::int64_t k) {
  if (gates[0] == 0) {
    std::fill_n(gates, k, 1.0F);
  }
  normalise_gates(gates, k);
}

/// Rows of `count` floats, one for each of `rows`.
float* scratch_rows(const Context& context, std::int64_t rows, std::int64_t count) {
  return context.scratch.tensor(DType::f32, {rows, count}).data<float>();
}

}  // namespace

void biased_top_k_forward(const Context& context, const Tensor& logits, const Tensor& bias,
                          const Tensor& probabilities, const Tensor& experts, const Tensor& gates) {
  check_cpu(context, "biased_top_k");
  check_bias(logits, bias);
  check(probabilities.shape() == logits.shape() && experts.shape() == gates.shape() &&
            experts.rows() == logits.rows() && experts.cols() >= 1 &&
            experts.cols() <= logits.cols(),
        "biased top_k needs experts and gates [tokens, k] with 1 <= k <= experts");
  const ArenaScope scope(context.scratch);
  const std::int64_t count = logits.cols();
  const std::int64_t k = experts.cols();
  const auto* from = logits.data<float>();
  const auto* b = bias.data<float>();
  auto* p = probabilities.data<float>();
  auto* ids = experts.data<std::int32_t>();
  auto* values = gates.data<float>();
  float* scores = scratch_rows(context, logits.rows(), count);
  parallel_blocks(context, logits.rows(), rows_per_block(count, kBlockElements),
                  [=](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t t = begin; t < end; ++t) {
                      const float* row = p + t * count;
                      score_row(from + t * count, b, count, p + t * count, scores + t * count);
                      select_row(scores + t * count, count, k, ids + t * k, values + t * k);
                      sort_by_probability(row, k, ids + t * k, values + t * k);
                      if (k > 1) {
                        gates_of_row(values + t * k, k);
                      }
                    }
                  });
}

void mask_largest_biased(const Context& context, std::int64_t n, const Tensor& bias,
                         const Tensor& logits) {
  check_cpu(context, "mask_largest_biased");
  check_bias(logits, bias);
  check(n >= 0 && n < logits.cols(), "mask_largest_biased leaves at least one");
  const ArenaScope scope(context.scratch);
  const std::int64_t count = logits.cols();
  const auto* b = bias.data<float>();
  auto* values = logits.data<float>();
  float* scores = scratch_rows(context, logits.rows(), count);
  float* p = scratch_rows(context, logits.rows(), count);
  parallel_blocks(context, n == 0 ? 0 : logits.rows(), rows_per_block(count, kBlockElements),
                  [=](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t t = begin; t < end; ++t) {
                      float* row = values + t * count;
                      float* score = scores + t * count;
                      score_row(row, b, count, p + t * count, score);
                      for (std::int64_t i = 0; i < n; ++i) {
                        const auto largest = std::max_element(score, score + count) - score;
                        row[largest] = kMasked;
                        score[largest] = kMasked;
                      }
                    }
                  });
}

}  // namespace cartesian
