#pragma once
// CUDA's error codes as exceptions.

#include <cuda_runtime.h>

#include <string>

#include "base/error.h"

namespace cartesian {

/// Throws Error naming the operation and CUDA's own words unless `status` is success.
inline void check_cuda(cudaError_t status, const char* operation) {
  if (status != cudaSuccess) {
    throw Error(std::string(operation) + " failed: " + cudaGetErrorString(status));
  }
}

/// After a launch: its configuration may have been refused, or an earlier kernel may have failed.
inline void check_launch(const char* kernel) { check_cuda(cudaGetLastError(), kernel); }

}  // namespace cartesian
