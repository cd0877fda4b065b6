#include "tests/support/reference_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace cartesian::test {

namespace {

using std::exp;
using std::log;
using std::sqrt;

template <class T>
using Vector = std::vector<T>;

template <class T>
T dot_product(const T* a, const Vector<T>& b) {
  T sum = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

/// W x, W [out, in].
template <class T>
Vector<T> multiply(const Vector<T>& matrix, const Vector<T>& x) {
  Vector<T> y;
  for (std::size_t row = 0; row < matrix.size() / x.size(); ++row) {
    y.push_back(dot_product(matrix.data() + row * x.size(), x));
  }
  return y;
}

template <class T>
Vector<T> add(const Vector<T>& a, const Vector<T>& b) {
  Vector<T> sum;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum.push_back(a[i] + b[i]);
  }
  return sum;
}

template <class T>
Vector<T> scaled(const T& factor, const Vector<T>& x) {
  Vector<T> result;
  for (const T& value : x) {
    result.push_back(factor * value);
  }
  return result;
}

template <class T>
Vector<T> softmax(const Vector<T>& logits) {
  double largest = value_of(logits[0]);
  for (const T& logit : logits) {
    largest = std::max(largest, value_of(logit));
  }
  Vector<T> result;
  T sum = 0;
  for (const T& logit : logits) {
    result.push_back(exp(logit - T(largest)));
    sum += result.back();
  }
  for (T& value : result) {
    value = value / sum;
  }
  return result;
}

template <class T>
T sigmoid(const T& x) {
  return T(1) / (T(1) + exp(T(0) - x));
}

template <class T>
class Model {
 public:
  Model(const ModelConfig& config, const ReferenceWeights<T>& weights, const ReferenceBatch& batch)
      : config_(config),
        weights_(weights),
        length_(static_cast<std::size_t>(batch.length)),
        document_starts_(batch.document_starts),
        jitter_(batch.jitter) {}

  ReferenceResult<T> run(std::span<const std::int32_t> ids, std::span<const std::int32_t> targets) {
    const auto hidden = static_cast<std::size_t>(config_.hidden_size);
    const Vector<T>& embedding = weights_.at("model.embed_tokens.weight");
    std::vector<Vector<T>> x;
    for (const std::int32_t id : ids) {
      const T* row = embedding.data() + static_cast<std::size_t>(id) * hidden;
      x.emplace_back(row, row + hidden);
    }
    for (std::int64_t block = 0; block < config_.num_hidden_layers; ++block) {
      block_ = block;
      prefix_ = "model.layers." + std::to_string(block) + ".";
      attention(x);
      if (config_.sub_layers == 0 || block % config_.expert_interval != 0) {
        for (Vector<T>& token : x) {
          token =
              add(token, ffn(prefix_ + "mlp.", norm(prefix_ + "post_attention_layernorm", token)));
        }
      } else {
        for (int group = 0; group < config_.sub_layers; ++group) {
          sub_layer(group, ids, x);
        }
      }
    }
    for (std::size_t t = 0; t < x.size(); ++t) {
      const Vector<T> logits = multiply(weights_.at("lm_head.weight"), norm("model.norm", x[t]));
      result_.losses.push_back(T(0) - log(softmax(logits)[static_cast<std::size_t>(targets[t])]));
    }
    return std::move(result_);
  }

 private:
  Vector<T> norm(const std::string& name, const Vector<T>& x) const {
    T squares = 0;
    for (const T& value : x) {
      squares += value * value;
    }
    const T rms = sqrt(squares / T(static_cast<double>(x.size())) + T(config_.rms_norm_eps));
    const Vector<T>& weight = weights_.at(name + ".weight");
    Vector<T> result;
    for (std::size_t i = 0; i < x.size(); ++i) {
      result.push_back(weight[i] * x[i] / rms);
    }
    return result;
  }

  /// FFN(h) = W_down( silu(W_gate h) * (W_up h) ).
  Vector<T> ffn(const std::string& prefix, const Vector<T>& h) const {
    const Vector<T> gate = multiply(weights_.at(prefix + "gate_proj.weight"), h);
    const Vector<T> up = multiply(weights_.at(prefix + "up_proj.weight"), h);
    Vector<T> inner;
    for (std::size_t i = 0; i < gate.size(); ++i) {
      inner.push_back(gate[i] * sigmoid(gate[i]) * up[i]);
    }
    return multiply(weights_.at(prefix + "down_proj.weight"), inner);
  }

  /// LLaMA's rotary embedding: components i and i + D/2 of a head turn by position * theta^(-2i/D).
  void rotate(Vector<T>& x, std::size_t position) const {
    const auto dim = static_cast<std::size_t>(config_.hidden_size / config_.num_attention_heads);
    for (std::size_t head = 0; head < x.size(); head += dim) {
      for (std::size_t i = 0; i < dim / 2; ++i) {
        const double angle =
            static_cast<double>(position) *
            std::pow(config_.rope_theta, -2 * static_cast<double>(i) / static_cast<double>(dim));
        const T a = x[head + i];
        const T b = x[head + i + dim / 2];
        x[head + i] = a * T(std::cos(angle)) - b * T(std::sin(angle));
        x[head + i + dim / 2] = b * T(std::cos(angle)) + a * T(std::sin(angle));
      }
    }
  }

  void attention(std::vector<Vector<T>>& x) const {
    const std::string name = prefix_ + "self_attn.";
    std::vector<Vector<T>> q;
    std::vector<Vector<T>> k;
    std::vector<Vector<T>> v;
    for (std::size_t t = 0; t < x.size(); ++t) {
      const Vector<T> h = norm(prefix_ + "input_layernorm", x[t]);
      q.push_back(multiply(weights_.at(name + "q_proj.weight"), h));
      k.push_back(multiply(weights_.at(name + "k_proj.weight"), h));
      v.push_back(multiply(weights_.at(name + "v_proj.weight"), h));
      rotate(q.back(), t % length_);
      rotate(k.back(), t % length_);
    }
    const auto dim = static_cast<std::size_t>(config_.hidden_size / config_.num_attention_heads);
    for (std::size_t t = 0; t < x.size(); ++t) {
      Vector<T> attended(x[t].size(), T(0));
      const std::size_t first =
          t / length_ * length_ +
          (document_starts_.empty() ? 0 : static_cast<std::size_t>(document_starts_[t]));
      for (std::size_t head = 0; head < attended.size(); head += dim) {
        Vector<T> scores;
        for (std::size_t s = first; s <= t; ++s) {
          T score = 0;
          for (std::size_t i = head; i < head + dim; ++i) {
            score += q[t][i] * k[s][i];
          }
          scores.push_back(score / T(std::sqrt(static_cast<double>(dim))));
        }
        const Vector<T> p = softmax(scores);
        for (std::size_t s = first; s <= t; ++s) {
          for (std::size_t i = head; i < head + dim; ++i) {
            attended[i] += p[s - first] * v[s][i];
          }
        }
      }
      x[t] = add(x[t], multiply(weights_.at(name + "o_proj.weight"), attended));
    }
  }

  void note_gap(double gap) { result_.smallest_gap = std::min(result_.smallest_gap, gap); }

  /// The chosen experts: the k most probable, or until the sum exceeds the threshold.
  std::vector<std::size_t> choose(const std::string& number, const Vector<T>& p) {
    std::vector<std::size_t> order(p.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const Vector<T> no_bias(p.size(), T(0));
    const Vector<T>& bias =
        config_.router_bias ? weights_.at(prefix_ + "expert_bias" + number) : no_bias;
    const auto score = [&](std::size_t i) { return value_of(p[i]) + value_of(bias[i]); };
    std::ranges::stable_sort(order, std::greater<>(), score);
    auto k = static_cast<std::size_t>(config_.moe_top_k);
    if (config_.routing == "top_p") {
      double sum = 0;
      for (k = 0; sum <= config_.moe_top_p; ++k) {
        sum += value_of(p[order[k]]);
        note_gap(std::abs(sum - config_.moe_top_p));
      }
    }
    if (k < p.size()) {
      note_gap(score(order[k - 1]) - score(order[k]));
    }
    order.resize(k);
    return order;
  }

  /// The router's logits of one token. A hash table is not trained: constants.
  Vector<T> router_logits(const std::string& number, std::int32_t id, const Vector<T>& h) const {
    if (config_.routing != "hash") {
      return multiply(weights_.at(prefix_ + "wg" + number + ".weight"), h);
    }
    const T* row = weights_.at("model.router_tokens.weight").data() + id * config_.num_experts;
    Vector<T> logits;
    for (std::int64_t i = 0; i < config_.num_experts; ++i) {
      logits.push_back(T(value_of(row[i])));
    }
    return logits;
  }

  void sub_layer(int group, std::span<const std::int32_t> ids, std::vector<Vector<T>>& x) {
    const std::string number = config_.sub_layers == 1 ? "" : std::to_string(group);
    const auto experts = static_cast<std::size_t>(config_.num_experts);
    ReferenceRouting routing;
    routing.counts.resize(experts);
    Vector<T> probability_sums(experts, T(0));
    T z_loss = 0;
    for (std::size_t t = 0; t < x.size(); ++t) {
      Vector<T>& token = x[t];
      const Vector<T> h =
          norm(prefix_ + (group == 0 ? "post_attention_layernorm" : "mlp_layernorm"), token);
      const Vector<T> logits = router_logits(number, ids[t], jittered(group, t, h));
      const Vector<T> p = softmax(logits);
      z_loss += squared_log_sum_exp(logits) / T(static_cast<double>(x.size()));
      const std::vector<std::size_t> chosen = choose(number, p);
      routing.chosen.emplace_back(chosen.begin(), chosen.end());
      T sum = 0;
      for (const std::size_t i : chosen) {
        sum += p[i];
        routing.counts[i] += 1;
      }
      Vector<T> y(h.size(), T(0));
      for (const std::size_t i : chosen) {
        const bool normalised = config_.routing != "top_p" && chosen.size() > 1;
        const T gate = normalised ? p[i] / sum : p[i];
        y = add(y, scaled(gate, ffn(prefix_ + "mlp" + number + "." + std::to_string(i) + ".", h)));
      }
      probability_sums = add(probability_sums, p);
      token = add(token, mixed(number, h, y));
    }
    result_.z_loss.push_back(config_.routing == "hash" ? T(0) : z_loss);
    finish_routing(std::move(routing), probability_sums, static_cast<double>(x.size()));
  }

  Vector<T> jittered(int group, std::size_t token, Vector<T> h) const {
    for (std::size_t column = 0; jitter_ && column < h.size(); ++column) {
      h[column] = h[column] * T(jitter_(block_, group, token, column));
    }
    return h;
  }

  static T squared_log_sum_exp(const Vector<T>& logits) {
    T sum = 0;
    for (const T& logit : logits) {
      sum += exp(logit);
    }
    const T z = log(sum);
    return z * z;
  }

  /// c_0 y + c_1 FFN_shared(h), or y without a shared expert.
  Vector<T> mixed(const std::string& number, const Vector<T>& h, const Vector<T>& y) const {
    if (!config_.use_residual) {
      return y;
    }
    const std::string mix = prefix_ + "coefficient" + number;
    const Vector<T> c =
        softmax(add(multiply(weights_.at(mix + ".weight"), h), weights_.at(mix + ".bias")));
    return add(scaled(c[0], y), scaled(c[1], shared(prefix_ + "res_mlp" + number + ".", h)));
  }

  /// One FFN, or in a fine-grained layer the mean of several.
  Vector<T> shared(const std::string& prefix, const Vector<T>& h) const {
    if (config_.sub_layers == 2 || config_.grain_level == 1) {
      return ffn(prefix, h);
    }
    Vector<T> sum(h.size(), T(0));
    for (std::int64_t i = 0; i < config_.grain_level; ++i) {
      sum = add(sum, ffn(prefix + "mlp" + std::to_string(i) + ".", h));
    }
    return scaled(T(1.0 / static_cast<double>(config_.grain_level)), sum);
  }

  /// N * sum_i f_i P_i; f is a constant.
  void finish_routing(ReferenceRouting routing, const Vector<T>& probability_sums, double tokens) {
    const auto experts = static_cast<double>(config_.num_experts);
    const double choices = std::accumulate(routing.counts.begin(), routing.counts.end(), 0.0);
    for (std::size_t i = 0; i < routing.counts.size(); ++i) {
      const double share = routing.counts[i] / choices;
      result_.balance_loss += T(experts * share) * (probability_sums[i] / T(tokens));
      routing.probabilities.push_back(value_of(probability_sums[i]));
    }
    result_.routing.push_back(std::move(routing));
  }

  const ModelConfig& config_;
  const ReferenceWeights<T>& weights_;
  std::size_t length_;
  std::span<const std::int32_t> document_starts_;
  const ReferenceJitter& jitter_;
  std::int64_t block_ = 0;
  std::string prefix_;
  ReferenceResult<T> result_;
};

}  // namespace

template <class T>
ReferenceResult<T> reference_model(const ModelConfig& config, const ReferenceWeights<T>& weights,
                                   const ReferenceBatch& batch) {
  return Model<T>(config, weights, batch).run(batch.ids, batch.targets);
}

template ReferenceResult<double> reference_model(const ModelConfig&,
                                                 const ReferenceWeights<double>&,
                                                 const ReferenceBatch&);
template ReferenceResult<Var> reference_model(const ModelConfig&, const ReferenceWeights<Var>&,
                                              const ReferenceBatch&);

}  // namespace cartesian::test
