#include "base/arena.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <new>

namespace cartesian {
namespace {

bool is_aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 64 == 0; }

TEST(Arena, AlignsEveryAllocation) {
  HostAllocator allocator;
  Arena arena(allocator);
  for (const std::size_t bytes : {0U, 1U, 63U, 64U, 65U, 1'000'000U}) {
    EXPECT_TRUE(is_aligned(arena.allocate(bytes))) << bytes;
  }
}

TEST(Arena, AllocationsDoNotOverlap) {
  HostAllocator allocator;
  Arena arena(allocator);
  const Tensor a = arena.zeros(DType::i32, {1000, 3});
  const Tensor b = arena.tensor(DType::i32, {50'000});
  for (std::int32_t& value : b.span<std::int32_t>()) {
    value = 7;
  }
  for (const std::int32_t value : a.span<std::int32_t>()) {
    ASSERT_EQ(value, 0);
  }
}

TEST(Arena, StopsGrowingAtSteadyLoad) {
  HostAllocator allocator;
  Arena arena(allocator);
  const auto load = [&] {
    for (std::size_t i = 1; i <= 40; ++i) {
      const ArenaScope scope(arena);
      arena.allocate(i * 10'000);
      const ArenaScope inner(arena);
      arena.allocate(i * 5'000);
    }
    arena.allocate(300'000);
    arena.allocate(123);
  };
  for (int warm_up = 0; warm_up < 2; ++warm_up) {
    load();
    arena.reset();
  }
  const std::int64_t growths = arena.growths();
  const std::size_t capacity = arena.capacity();
  for (int step = 0; step < 10; ++step) {
    load();
    arena.reset();
  }
  EXPECT_EQ(arena.growths(), growths);
  EXPECT_EQ(arena.capacity(), capacity);
  EXPECT_LE(arena.peak(), capacity);
}

TEST(Arena, PeakLeavesOutWhatIsLeftOverInBlocks) {
  HostAllocator allocator;
  Arena arena(allocator);
  arena.allocate(1'280'000);
  const Arena::Mark mark = arena.mark();
  arena.allocate(3'200'000);  // begins a block: the first has too little left
  arena.release(mark);
  arena.allocate(3'840'000);                         // begins a third: the second is too small
  EXPECT_EQ(arena.peak(), 1'280'000U + 3'840'000U);  // both multiples of the alignment
}

TEST(Arena, ScopesGiveTheirMemoryBack) {
  HostAllocator allocator;
  Arena arena(allocator);
  void* first = nullptr;
  {
    const ArenaScope scope(arena);
    first = arena.allocate(1000);
    arena.allocate(1'000'000);
  }
  EXPECT_EQ(arena.allocate(1000), first);
}

TEST(Arena, ResetMergesBlocks) {
  HostAllocator allocator;
  Arena arena(allocator);
  arena.allocate(3'000'000);
  arena.allocate(30'000'000);
  EXPECT_EQ(arena.growths(), 2);
  arena.reset();
  EXPECT_EQ(arena.growths(), 3);
  arena.allocate(3'000'000);
  arena.allocate(30'000'000);
  EXPECT_EQ(arena.growths(), 3);
}

TEST(Arena, ReportsExhaustion) {
  class Empty final : public Allocator {
   public:
    Device device() const override { return Device::cpu; }
    void* allocate(std::size_t) override { throw std::bad_alloc(); }
    void release(void*, std::size_t) noexcept override {}
  };
  Empty allocator;
  Arena arena(allocator);
  EXPECT_THROW(arena.allocate(1), std::bad_alloc);
  EXPECT_EQ(arena.capacity(), 0U);
}

TEST(ArenaDeathTest, ReleasesInReverseOrderOnly) {
  HostAllocator allocator;
  Arena arena(allocator);
  const Arena::Mark start = arena.mark();
  arena.allocate(64);
  const Arena::Mark later = arena.mark();
  arena.release(start);
  EXPECT_DEATH(arena.release(later), "reverse order");
}

}  // namespace
}  // namespace cartesian
