// Replaces operator new of a fuzz program: a parser that believes a size in a damaged file and
// allocates it fails the test. The inputs are a few hundred bytes.

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace {
constexpr std::size_t kMaxAllocation = std::size_t{64} << 20;
}

void* operator new(std::size_t bytes) {
  if (bytes > kMaxAllocation) {
    std::fprintf(stderr, "an allocation of %zu bytes for a small input\n", bytes);
    std::abort();
  }
  void* block = std::malloc(bytes > 0 ? bytes : 1);
  if (block == nullptr) {
    throw std::bad_alloc();
  }
  return block;
}

void operator delete(void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }
