#pragma once
// What the tests of ops are held against: float64 values, and derivatives of a float64 reference by
// central differences, so that no gradient is checked against a formula of the same author.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <vector>

namespace cartesian::test {

using Doubles = std::vector<double>;
/// A scalar function of one argument of an op; the others are bound.
using Objective = std::function<double(const Doubles&)>;

inline double dot(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

/// d f / d x[i], accurate to about 1e-9 for smooth functions of order one.
inline double numeric_derivative(const Objective& f, Doubles x, std::size_t i, double step = 1e-5) {
  const double centre = x[i];
  x[i] = centre + step;
  const double above = f(x);
  x[i] = centre - step;
  const double below = f(x);
  return (above - below) / (2 * step);
}

/// Element by element: |actual - expected| <= tolerance * (|expected| + the expected values' root
/// mean square).
inline void expect_close(const Doubles& actual, const Doubles& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  double squares = 0;
  for (const double value : expected) {
    squares += value * value;
  }
  const double rms =
      std::sqrt(squares / static_cast<double>(std::max<std::size_t>(1, expected.size())));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance * (std::abs(expected[i]) + rms) + 1e-30)
        << "element " << i << " of " << expected.size();
  }
}

/// `gradient` against finite differences of `f` at `x`: all elements, or about `samples` spread
/// evenly where there are more.
inline void expect_gradient(const Doubles& gradient, const Objective& f, const Doubles& x,
                            double tolerance, std::size_t samples = 400) {
  ASSERT_EQ(gradient.size(), x.size());
  const std::size_t stride = std::max<std::size_t>(1, x.size() / samples);
  Doubles actual;
  Doubles expected;
  for (std::size_t i = 0; i < x.size(); i += stride) {
    actual.push_back(gradient[i]);
    expected.push_back(numeric_derivative(f, x, i));
  }
  expect_close(actual, expected, tolerance);
}

}  // namespace cartesian::test
