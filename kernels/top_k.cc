#include "kernels/top_k.h"

#include "kernels/dispatch.h"
#include "kernels/parallel.h"
#include "kernels/softmax_row.h"

namespace cartesian {

namespace {

constexpr std::int64_t kBlockElements = 4096;

void check_choice(const Tensor& probabilities, const Tensor& experts, const Tensor& gates) {
  check(probabilities.dtype() == DType::f32 && probabilities.shape().rank() == 2,
        "top_k needs float32 probabilities [tokens, experts]");
  check(experts.dtype() == DType::i32 && gates.dtype() == DType::f32 &&
            experts.shape() == gates.shape() && experts.shape().rank() == 2 &&
            experts.rows() == probabilities.rows(),
        "top_k needs int32 experts and float32 gates [tokens, k]");
  check(experts.cols() >= 1 && experts.cols() <= probabilities.cols(),
        "top_k needs 1 <= k <= experts");
}

// Keeps the k largest in descending order. A later value goes behind its equals, so the lower id
// comes first; ids are valid even where probabilities are NaN.
void select(const float* p, std::int64_t count, std::int64_t k, std::int32_t* ids, float* values) {
  std::int64_t size = 0;
  for (std::int64_t e = 0; e < count; ++e) {
    std::int64_t place = size;
    while (place > 0 && p[e] > values[place - 1]) {
      --place;
    }
    if (place == k) {
      continue;
    }
    size = std::min(size + 1, k);
    for (std::int64_t i = size - 1; i > place; --i) {
      values[i] = values[i - 1];
      ids[i] = ids[i - 1];
    }
    values[place] = p[e];
    ids[place] = static_cast<std::int32_t>(e);
  }
}

void normalise(float* gates, std::int64_t k) {
  float sum = 0;
  for (std::int64_t j = 0; j < k; ++j) {
    sum += gates[j];
  }
  for (std::int64_t j = 0; j < k; ++j) {
    gates[j] /= sum;
  }
}

struct Backward {
  const float* probabilities;
  const std::int32_t* experts;
  const float* gates;
  const float* dgates;
  const float* dprobability;  // null: none
  float* dlogits;
  std::int64_t count;
  std::int64_t k;

  // With gates g = p / sum over the chosen, softmax's Jacobian leaves dlogit_e = g_e (dg_e -
  // <g, dg>) for the chosen e: the sum cancels. With k = 1 the gate is p itself.
  void row(std::int64_t t) const {
    const float* p = probabilities + t * count;
    float* dlogit = dlogits + t * count;
    float mean = 0;  // of the gradient of every probability
    if (dprobability != nullptr) {
#pragma omp simd reduction(+ : mean)
      for (std::int64_t e = 0; e < count; ++e) {
        mean += p[e] * dprobability[e];
      }
    }
    if (k == 1) {
      mean += p[experts[t]] * dgates[t];
    }
    if (dprobability != nullptr) {
#pragma omp simd
      for (std::int64_t e = 0; e < count; ++e) {
        dlogit[e] = p[e] * (dprobability[e] - mean);
      }
    } else {
#pragma omp simd
      for (std::int64_t e = 0; e < count; ++e) {
        dlogit[e] = -p[e] * mean;
      }
    }
    if (k == 1) {
      dlogit[experts[t]] += p[experts[t]] * dgates[t];
      return;
    }
    float inner = 0;
    for (std::int64_t j = t * k; j < (t + 1) * k; ++j) {
      inner += gates[j] * dgates[j];
    }
    for (std::int64_t j = t * k; j < (t + 1) * k; ++j) {
      dlogit[experts[j]] += gates[j] * (dgates[j] - inner);
    }
  }
};

}  // namespace

void top_k_forward(const Context& context, const Tensor& logits, const Tensor& probabilities,
                   const Tensor& experts, const Tensor& gates) {
  check_cpu(context, "top_k");
  check_choice(probabilities, experts, gates);
  check(logits.shape() == probabilities.shape(), "top_k needs logits [tokens, experts]");
  const auto* from = logits.data<float>();
  auto* p = probabilities.data<float>();
  auto* ids = experts.data<std::int32_t>();
  auto* values = gates.data<float>();
  const std::int64_t count = logits.cols();
  const std::int64_t k = experts.cols();
  parallel_blocks(context, logits.rows(), rows_per_block(count, kBlockElements),
                  [=](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t t = begin; t < end; ++t) {
                      softmax_row(from + t * count, count, p + t * count);
                      select(p + t * count, count, k, ids + t * k, values + t * k);
                      if (k > 1) {
                        normalise(values + t * k, k);
                      }
                    }
                  });
}

void top_k_backward(const Context& context, const Tensor& probabilities, const Tensor& experts,
                    const Tensor& gates, const Tensor& dgates, const Tensor& dprobability,
                    const Tensor& dlogits) {
  check_cpu(context, "top_k");
  check_choice(probabilities, experts, gates);
  check(dgates.shape() == gates.shape() && dlogits.shape() == probabilities.shape(),
        "top_k_backward needs dgates like gates and dlogits like probabilities");
  check(!dprobability.defined() || dprobability.numel() == probabilities.cols(),
        "top_k_backward needs one dprobability per expert");
  const Backward op{.probabilities = probabilities.data<float>(),
                    .experts = experts.data<std::int32_t>(),
                    .gates = gates.data<float>(),
                    .dgates = dgates.data<float>(),
                    .dprobability = dprobability.defined() ? dprobability.data<float>() : nullptr,
                    .dlogits = dlogits.data<float>(),
                    .count = probabilities.cols(),
                    .k = experts.cols()};
  parallel_blocks(context, probabilities.rows(), rows_per_block(op.count, kBlockElements),
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t t = begin; t < end; ++t) {
                      op.row(t);
                    }
                  });
}

}  // namespace cartesian
