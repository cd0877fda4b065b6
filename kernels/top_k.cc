#include "kernels/top_k.h"

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

/// How many of the k largest probabilities, in descending order, it takes to exceed the threshold.
std::int64_t count_until(const float* values, std::int64_t k, float threshold) {
  float sum = 0;
  for (std::int64_t j = 0; j < k; ++j) {
    sum += values[j];
    if (sum > threshold) {
      return j + 1;
    }
  }
  return k;
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
  bool normalised;  // gates are probabilities divided by their sum, not themselves

  // What the chosen probabilities themselves receive, summed with p as weights.
  float mean_of_gates(std::int64_t t, const float* p) const {
    float mean = 0;
    for (std::int64_t j = t * k; !normalised && j < (t + 1) * k; ++j) {
      mean += experts[j] < 0 ? 0 : p[experts[j]] * dgates[j];
    }
    return mean;
  }

  // With gates g = p / sum over the chosen, softmax's Jacobian leaves dlogit_e = g_e (dg_e -
  // <g, dg>) for the chosen e: the sum cancels. Otherwise the gate is p itself.
  void row(std::int64_t t) const {
    const float* p = probabilities + t * count;
    float* dlogit = dlogits + t * count;
    float mean = mean_of_gates(t, p);  // of the gradient of every probability
    if (dprobability != nullptr) {
      float inner = 0;
#pragma omp simd reduction(+ : inner)
      for (std::int64_t e = 0; e < count; ++e) {
        inner += p[e] * dprobability[e];
      }
      mean += inner;
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
    add_chosen(t, p, dlogit);
  }

  void add_chosen(std::int64_t t, const float* p, float* dlogit) const {
    if (!normalised) {
      for (std::int64_t j = t * k; j < (t + 1) * k; ++j) {
        if (experts[j] >= 0) {
          dlogit[experts[j]] += p[experts[j]] * dgates[j];
        }
      }
      return;
    }
    if (p[experts[t * k]] == 0) {  // all of them are: biased_top_k made the gates constants
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

/// `gates` undefined: a gate is the probability itself.
void backward(const Context& context, const Tensor& probabilities, const Tensor& experts,
              const Tensor& gates, const Tensor& dgates, const Tensor& dprobability,
              const Tensor& dlogits) {
  check_cpu(context, "top_k");
  check_choice(probabilities, experts, dgates);
  check(dlogits.shape() == probabilities.shape(),
        "top_k_backward needs dlogits like probabilities");
  check(!dprobability.defined() || dprobability.numel() == probabilities.cols(),
        "top_k_backward needs one dprobability per expert");
  const Backward op{.probabilities = probabilities.data<float>(),
                    .experts = experts.data<std::int32_t>(),
                    .gates = gates.defined() ? gates.data<float>() : nullptr,
                    .dgates = dgates.data<float>(),
                    .dprobability = dprobability.defined() ? dprobability.data<float>() : nullptr,
                    .dlogits = dlogits.data<float>(),
                    .count = probabilities.cols(),
                    .k = experts.cols(),
                    .normalised = gates.defined()};
  parallel_blocks(context, probabilities.rows(), rows_per_block(op.count, kBlockElements),
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t t = begin; t < end; ++t) {
                      op.row(t);
                    }
                  });
}

/// softmax, then choose(ids, values, k): the k largest are in `ids` and `values`, in order.
template <class Choose>
void choose_forward(const Context& context, const Tensor& logits, const Tensor& probabilities,
                    const Tensor& experts, const Tensor& gates, const Choose& choose) {
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
                      select_row(p + t * count, count, k, ids + t * k, values + t * k);
                      choose(ids + t * k, values + t * k, k);
                    }
                  });
}

}  // namespace

void top_k_forward(const Context& context, const Tensor& logits, const Tensor& probabilities,
                   const Tensor& experts, const Tensor& gates) {
  choose_forward(context, logits, probabilities, experts, gates,
                 [](std::int32_t* /*ids*/, float* values, std::int64_t k) {
                   if (k > 1) {
                     normalise_gates(values, k);
                   }
                 });
}

void top_k_backward(const Context& context, const Tensor& probabilities, const Tensor& experts,
                    const Tensor& gates, const Tensor& dgates, const Tensor& dprobability,
                    const Tensor& dlogits) {
  check_choice(probabilities, experts, gates);
  const bool normalised = experts.cols() > 1;
  backward(context, probabilities, experts, normalised ? gates : Tensor(), dgates, dprobability,
           dlogits);
}

void top_p_forward(const Context& context, float threshold, const Tensor& logits,
                   const Tensor& probabilities, const Tensor& experts, const Tensor& gates) {
  choose_forward(context, logits, probabilities, experts, gates,
                 [threshold](std::int32_t* ids, float* values, std::int64_t k) {
                   for (std::int64_t j = count_until(values, k, threshold); j < k; ++j) {
                     ids[j] = -1;
                     values[j] = 0;
                   }
                 });
}

void top_p_backward(const Context& context, const Tensor& probabilities, const Tensor& experts,
                    const Tensor& dgates, const Tensor& dprobability, const Tensor& dlogits) {
  backward(context, probabilities, experts, Tensor(), dgates, dprobability, dlogits);
}

std::int64_t top_p_choices(double threshold, std::int64_t experts) {
  const double needed = std::floor(threshold * static_cast<double>(experts)) + 1;
  return std::min(experts, static_cast<std::int64_t>(needed));
}

void mask_largest(const Context& context, std::int64_t n, const Tensor& logits) {
  check_cpu(context, "mask_largest");
  check(logits.dtype() == DType::f32 && n >= 0 && n < logits.cols(),
        "mask_largest needs float32 logits and leaves at least one");
  auto* values = logits.data<float>();
  const std::int64_t count = logits.cols();
  parallel_blocks(context, logits.rows(), rows_per_block(count, kBlockElements),
                  [=](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t t = begin; t < end; ++t) {
                      float* row = values + t * count;
                      for (std::int64_t i = 0; i < n; ++i) {
                        *std::max_element(row, row + count) =
                            -std::numeric_limits<float>::infinity();
                      }
                    }
                  });
}

}  // namespace cartesian
