#pragma once
// From run-time properties of a call (element type, device) to the code that serves it.

#include <string>
#include <string_view>

#include "base/bfloat16.h"
#include "base/context.h"

namespace cartesian {

/// Calls f(float{}) or f(bfloat16{}). Another dtype is a bug.
template <class F>
void dispatch_float(DType dtype, const F& f) {
  if (dtype == DType::f32) {
    f(float{});
  } else {
    check(dtype == DType::bf16, "an op got a tensor that is neither float32 nor bfloat16");
    f(bfloat16{});
  }
}

/// For ops that have no CUDA twin.
inline void check_cpu(const Context& context, std::string_view op,
                      const std::source_location& where = std::source_location::current()) {
  if (context.device != Device::cpu) [[unlikely]] {
    fail_check(std::string(op) + " has no CUDA implementation", where);
  }
}

}  // namespace cartesian
