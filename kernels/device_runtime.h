#pragma once
// The device seam: whether this build and machine have a CUDA device, its memory, copies and
// stream. Compiled from cuda_runtime.cu, or from no_cuda.cc where there is no nvcc.

#include <memory>
#include <string>

#include "base/allocator.h"
#include "base/context.h"

namespace cartesian {

/// Empty if a CUDA device can be used; else one sentence saying why not ("built without CUDA", "no
/// CUDA driver: ...").
std::string cuda_unavailable_reason();

/// Throws ConfigError where cuda_unavailable_reason() is not empty; so do the rest.
std::unique_ptr<Allocator> make_cuda_allocator();
StreamHandle make_cuda_stream();
void destroy_cuda_stream(StreamHandle stream);
/// Copies between host and device memory of equal sizes in stream order, and waits.
void cuda_copy(const Context& context, const Tensor& from, const Tensor& to);

}  // namespace cartesian
