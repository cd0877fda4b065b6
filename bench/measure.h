#pragma once
// What benchmark programs share: clocks, medians, made-up operands, the processor's name.

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include "base/arena.h"
#include "base/bfloat16.h"
#include "base/random.h"
#include "base/tensor.h"

namespace cartesian::bench {

double seconds_of(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

/// Uniform in scale * [-1/2, 1/2).
inline Tensor random_tensor(Arena& arena, DType dtype, Shape shape, double scale) {
  const Tensor tensor = arena.tensor(dtype, shape);
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    const auto value =
        static_cast<float>(scale * (random_uniform(7, static_cast<std::uint64_t>(i)) - 0.5));
    if (dtype == DType::f32) {
      tensor.data<float>()[i] = value;
    } else {
      tensor.data<bfloat16>()[i] = to_bfloat16(value);
    }
  }
  return tensor;
}

inline std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) {
      return line.substr(line.find(':') + 2);
    }
  }
  return "unknown processor";
}

}  // namespace cartesian::bench
