#pragma once
// Reverse-mode differentiation of float64 scalars: a formula written with Var gives all its
// derivatives in one sweep, so that a reference of a whole model needs no hand-written backward.
//
//   Tape tape;
//   Var x = tape.variable(2);
//   const std::vector<double> d = tape.gradients(x * exp(x));
//   d[x.index()] ...
//
// Not thread-safe. A Var must not outlive its tape.

#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

namespace cartesian::test {

class Var;

class Tape {
 public:
  Var variable(double value);
  /// d result / d v at v.index(), for every v recorded.
  std::vector<double> gradients(const Var& result) const;
  /// Likewise the sum of the absolute values of the terms whose sum is that derivative: how much
  /// larger it is says how many digits rounding takes from the derivative.
  std::vector<double> magnitudes(const Var& result) const;

 private:
  friend class Var;
  /// Two operands and the derivative with respect to each. Node 0 stands for constants.
  struct Node {
    std::array<std::size_t, 2> operand{};
    std::array<double, 2> derivative{};
  };
  std::size_t record(Node node) {
    nodes_.push_back(node);
    return nodes_.size() - 1;
  }
  std::vector<Node> nodes_ = {Node{}};
};

class Var {
 public:
  Var() = default;
  Var(double constant) : value_(constant) {}  // NOLINT(google-explicit-constructor): as a double

  double value() const { return value_; }
  std::size_t index() const { return index_; }

  friend Var operator+(const Var& a, const Var& b) { return {a.value_ + b.value_, a, 1, b, 1}; }
  friend Var operator-(const Var& a, const Var& b) { return {a.value_ - b.value_, a, 1, b, -1}; }
  friend Var operator*(const Var& a, const Var& b) {
    return {a.value_ * b.value_, a, b.value_, b, a.value_};
  }
  friend Var operator/(const Var& a, const Var& b) {
    const double value = a.value_ / b.value_;
    return {value, a, 1 / b.value_, b, -value / b.value_};
  }
  Var& operator+=(const Var& other) { return *this = *this + other; }
  friend Var exp(const Var& a) {
    const double value = std::exp(a.value_);
    return {value, a, value, {}, 0};
  }
  friend Var log(const Var& a) { return {std::log(a.value_), a, 1 / a.value_, {}, 0}; }
  friend Var sqrt(const Var& a) {
    const double value = std::sqrt(a.value_);
    return {value, a, 0.5 / value, {}, 0};
  }

 private:
  friend class Tape;
  Var(double value, const Var& a, double da, const Var& b, double db)
      : value_(value), tape_(a.tape_ != nullptr ? a.tape_ : b.tape_) {
    if (tape_ != nullptr) {
      index_ = tape_->record({{a.index_, b.index_}, {da, db}});
    }
  }

  double value_ = 0;
  Tape* tape_ = nullptr;
  std::size_t index_ = 0;
};

inline Var Tape::variable(double value) {
  Var result(value);
  result.tape_ = this;
  result.index_ = record({});
  return result;
}

inline std::vector<double> Tape::gradients(const Var& result) const {
  std::vector<double> gradients(nodes_.size());
  gradients[result.index()] = 1;
  for (std::size_t i = nodes_.size(); i-- > 1;) {
    for (std::size_t j = 0; j < 2; ++j) {
      gradients[nodes_[i].operand[j]] += nodes_[i].derivative[j] * gradients[i];
    }
  }
  return gradients;
}

inline std::vector<double> Tape::magnitudes(const Var& result) const {
  const std::vector<double> gradients = this->gradients(result);
  std::vector<double> magnitudes(nodes_.size());
  for (std::size_t i = 1; i < nodes_.size(); ++i) {
    for (std::size_t j = 0; j < 2; ++j) {
      magnitudes[nodes_[i].operand[j]] += std::abs(nodes_[i].derivative[j] * gradients[i]);
    }
  }
  return magnitudes;
}

inline double value_of(double x) { return x; }
inline double value_of(const Var& x) { return x.value(); }

}  // namespace cartesian::test
