// What stands in for CUDA where there is no nvcc: every entry throws the same sentence.
#include "base/error.h"
#include "kernels/backends.h"
#include "kernels/device_runtime.h"

namespace cartesian {

namespace {

constexpr const char* kReason = "built without CUDA";

[[noreturn]] void refuse() { throw ConfigError(kReason); }

}  // namespace

std::string cuda_unavailable_reason() { return kReason; }

std::unique_ptr<Allocator> make_cuda_allocator() { refuse(); }
StreamHandle make_cuda_stream() { refuse(); }
void destroy_cuda_stream(StreamHandle /*stream*/) { refuse(); }
void cuda_copy(const Context& /*context*/, const Tensor& /*from*/, const Tensor& /*to*/) {
  refuse();
}

namespace cuda {

void rms_norm_forward(const Context& /*context*/, const Tensor& /*x*/, const Tensor& /*weight*/,
                      float /*eps*/, const Tensor& /*y*/, const Tensor& /*inv_rms*/) {
  refuse();
}
void rms_norm_backward(const Context& /*context*/, const Tensor& /*x*/, const Tensor& /*weight*/,
                       const Tensor& /*inv_rms*/, const Tensor& /*dy*/, const Tensor& /*dx*/,
                       const Tensor& /*dweight*/) {
  refuse();
}
void copy_rows(const Context& /*context*/, RowSources /*from*/, RowTargets /*to*/,
               std::size_t /*row_bytes*/) {
  refuse();
}
void sum_rows(const Context& /*context*/, DType /*dtype*/, std::int64_t /*cols*/,
              std::span<const std::int64_t> /*begins*/, RowSources /*terms*/, RowTargets /*to*/) {
  refuse();
}

}  // namespace cuda

}  // namespace cartesian
