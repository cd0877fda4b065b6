// What measured paths made, against closed forms and the itineraries.

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "base/index.h"
#include "kernels/dispatch.h"
#include "planner/traffic.h"
#include "runtime/bench/exchange_measure.h"

namespace cartesian {

namespace {

/// Of a sum's terms: float32 adds a few dozen of them; bfloat16 rounds what is sent, some eight
/// times on the way.
double tolerance(DType dtype) { return dtype == DType::f32 ? 2e-5 : 0.04; }

class ResultCheck {
 public:
  ResultCheck(const ExchangeCase& measured, int rank, std::string_view name)
      : measured_(measured), rank_(rank), name_(name), tolerance_(tolerance(measured.dtype)) {}

  /// Rows at home are value(token, column) times what both sub-layers multiply by.
  template <class Value>
  void rows(const std::vector<Tensor>& chunks, std::string_view what, const Value& value) const {
    std::int64_t token = measured_.first_token(rank_);
    for (const Tensor& chunk : chunks) {
      dispatch_float(chunk.dtype(), [&]<class T>(T) {
        for (std::int64_t row = 0; row < chunk.rows(); ++row, ++token) {
          const double slope = all_slopes(token);
          for (std::int64_t c = 0; c < chunk.cols(); ++c) {
            const double expected = slope * double{value(token, c)};
            near(double{to_float(chunk.data<T>()[row * chunk.cols() + c])}, expected,
                 std::abs(expected),
                 [&] { return fmt::format("{} of token {}, column {},", what, token, c); });
          }
        }
      });
    }
    if (token != measured_.first_token(rank_ + 1)) {
      throw Error(fmt::format("{}: {} tokens came home to rank {}, not {}", name_,
                              token - measured_.first_token(rank_), rank_, measured_.tokens));
    }
  }

  /// A gate multiplies slope * x, whose gradient is slope * (x . dout), all of it scaled by what
  /// the other sub-layer multiplies by.
  void gates(int group, std::int64_t token, std::span<const float> gradients) const {
    double product = 0;
    double terms = 0;
    for (std::int64_t c = 0; c < measured_.hidden; ++c) {
      const double term = double{token_value(token, c)} * double{gradient_value(token, c)};
      product += term;
      terms += std::abs(term);
    }
    const double others = all_slopes(token) / measured_.slope(group, token);
    const auto experts = measured_.chosen(group, token);
    for (std::size_t j = 0; j < experts.size(); ++j) {
      const double slope = experts[j] < 0 ? 0.0 : double{expert_slope(group, experts[j])} * others;
      near(double{gradients[j]}, slope * product, slope * terms, [&] {
        return fmt::format("the gradient of gate {} of token {} in {}", j, token,
                           group == 0 ? "A" : "B");
      });
    }
  }

 private:
  double all_slopes(std::int64_t token) const {
    double product = 1;
    for (int group = 0; group < measured_.groups(); ++group) {
      product *= measured_.slope(group, token);
    }
    return product;
  }

  template <class What>
  void near(double actual, double expected, double terms, const What& what) const {
    if (!(std::abs(actual - expected) <= tolerance_ * terms)) {
      throw Error(fmt::format("{}: {} is {}, not {}", name_, what(), actual, expected));
    }
  }

  const ExchangeCase& measured_;
  int rank_;
  std::string_view name_;
  double tolerance_;
};

}  // namespace

void check_results(const ExchangeCase& measured, const ExchangePath& path, int rank,
                   std::string_view name) {
  const ResultCheck check(measured, rank, name);
  check.rows(path.outputs(), "the output", token_value);
  check.rows(path.input_gradients(), "the gradient", gradient_value);
  path.for_each_gate_gradient([&](int group, std::int64_t token, std::span<const float> gradients) {
    check.gates(group, token, gradients);
  });
}

void check_rows(const ExchangeCase& measured, const SentTraffic& sent, Flow flow,
                std::string_view name) {
  const Traffic traffic =
      count_traffic(layers_of(measured.routing).front(), measured.layer, measured.placement,
                    measured.topology, {.flow = flow, .rule = measured.rule});
  double intra = 0;
  for (const Traffic::Phase& phase : traffic.phases) {
    intra += phase.intra;
  }
  const double inter = traffic.copies();
  if (sent.rows[0] != 2 * intra || sent.rows[1] != 2 * inter) {
    throw Error(fmt::format(
        "{}: a step sent {} rows inside nodes and {} between nodes, but the itineraries of its "
        "tokens have {} and {}",
        name, sent.rows[0], sent.rows[1], 2 * intra, 2 * inter));
  }
}

}  // namespace cartesian
