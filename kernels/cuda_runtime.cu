#include <new>

#include "kernels/cuda_check.cuh"
#include "kernels/device_runtime.h"

namespace cartesian {

namespace {

void require_cuda() {
  const std::string reason = cuda_unavailable_reason();
  if (!reason.empty()) {
    throw ConfigError(reason);
  }
}

class CudaAllocator final : public Allocator {
 public:
  Device device() const override { return Device::cuda; }
  void* allocate(std::size_t bytes) override {
    void* block = nullptr;
    const cudaError_t status = cudaMalloc(&block, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // or the next launch would report it again
      throw std::bad_alloc();
    }
    check_cuda(status, "cudaMalloc");
    return block;
  }
  void release(void* block, std::size_t /*bytes*/) noexcept override { cudaFree(block); }
};

}  // namespace

std::string cuda_unavailable_reason() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess) {
    cudaGetLastError();
    return std::string("no usable CUDA device: ") + cudaGetErrorString(status);
  }
  return devices > 0 ? "" : "no CUDA device";
}

std::unique_ptr<Allocator> make_cuda_allocator() {
  require_cuda();
  return std::make_unique<CudaAllocator>();
}

StreamHandle make_cuda_stream() {
  require_cuda();
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  return stream;
}

void destroy_cuda_stream(StreamHandle stream) {
  require_cuda();
  check_cuda(cudaStreamDestroy(static_cast<cudaStream_t>(stream)), "cudaStreamDestroy");
}

void cuda_copy(const Context& context, const Tensor& from, const Tensor& to) {
  require_cuda();
  check(from.bytes() == to.bytes(), "cuda_copy needs equal sizes");
  const auto stream = static_cast<cudaStream_t>(context.stream);
  check_cuda(cudaMemcpyAsync(to.raw(), from.raw(), from.bytes(), cudaMemcpyDefault, stream),
             "cudaMemcpyAsync");
  check_cuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
}

}  // namespace cartesian
