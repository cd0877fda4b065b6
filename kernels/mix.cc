#include "kernels/mix.h"

#include "kernels/dispatch.h"
#include "kernels/fast_exp.h"
#include "kernels/parallel.h"

namespace cartesian {

namespace {

constexpr std::int64_t kTokens = 1024;  // per block

void check_mix(const Tensor& coefficients, const Tensor& gates, const Tensor& row_gates,
               const Tensor& shared_weights) {
  check(coefficients.shape() == Shape({gates.rows(), 2}), "mix needs coefficients [tokens, 2]");
  check(row_gates.shape() == gates.shape() && shared_weights.numel() == gates.rows(),
        "mix needs one weight per gate and one per token");
}

}  // namespace

void mix_forward(const Context& context, const Tensor& logits, const Tensor& bias,
                 const Tensor& gates, float shared_scale, const Tensor& coefficients,
                 const Tensor& row_gates, const Tensor& shared_weights) {
  check_cpu(context, "mix");
  check_mix(coefficients, gates, row_gates, shared_weights);
  check(logits.shape() == coefficients.shape() && bias.numel() == 2,
        "mix needs logits [tokens, 2] and bias [2]");
  const auto* logit = logits.data<float>();
  const float shift = bias.data<float>()[0] - bias.data<float>()[1];
  const auto* gate = gates.data<float>();
  auto* c = coefficients.data<float>();
  auto* row_gate = row_gates.data<float>();
  auto* shared = shared_weights.data<float>();
  const std::int64_t k = gates.cols();
  parallel_blocks(context, gates.rows(), kTokens, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      // Softmax of two is the logistic function of their difference, either way round so that the
      // smaller one keeps its relative accuracy.
      const float difference = logit[2 * t] - logit[2 * t + 1] + shift;
      c[2 * t] = fast_sigmoid(difference);
      c[2 * t + 1] = fast_sigmoid(-difference);
      shared[t] = shared_scale * c[2 * t + 1];
      for (std::int64_t j = t * k; j < (t + 1) * k; ++j) {
        row_gate[j] = c[2 * t] * gate[j];
      }
    }
  });
}

void mix_backward(const Context& context, const Tensor& coefficients, const Tensor& gates,
                  float shared_scale, const Tensor& drow_gates, const Tensor& dshared_weights,
                  const Tensor& dgates, const Tensor& dlogits, const Tensor& dbias) {
  check_cpu(context, "mix");
  check_mix(coefficients, gates, drow_gates, dshared_weights);
  check(dgates.shape() == gates.shape() && dlogits.shape() == coefficients.shape() &&
            dbias.numel() == 2,
        "mix_backward needs dgates like gates, dlogits [tokens, 2] and dbias [2]");
  const auto* c = coefficients.data<float>();
  const auto* gate = gates.data<float>();
  const auto* drow = drow_gates.data<float>();
  const auto* dshared = dshared_weights.data<float>();
  auto* dgate = dgates.data<float>();
  auto* dlogit = dlogits.data<float>();
  const std::int64_t k = gates.cols();
  parallel_blocks(context, gates.rows(), kTokens, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      float drouted = 0;
      for (std::int64_t j = t * k; j < (t + 1) * k; ++j) {
        drouted += drow[j] * gate[j];
        dgate[j] = c[2 * t] * drow[j];
      }
      dlogit[2 * t] = c[2 * t] * c[2 * t + 1] * (drouted - shared_scale * dshared[t]);
      dlogit[2 * t + 1] = -dlogit[2 * t];
    }
  });
  double sum = 0;  // eight bytes a token: one thread, in order
  for (std::int64_t t = 0; t < gates.rows(); ++t) {
    sum += dlogit[2 * t];
  }
  dbias.data<float>()[0] += static_cast<float>(sum);
  dbias.data<float>()[1] -= static_cast<float>(sum);
}

}  // namespace cartesian
