#include "comm/buffer_pool.h"

#include <gtest/gtest.h>

#include <cstring>

namespace cartesian {
namespace {

TEST(BufferPool, ReusesWhatIsGivenBack) {
  BufferPool pool;
  const std::byte* first = nullptr;
  {
    const BufferPool::Lease lease = pool.take(1000);
    first = lease.data();
    std::memset(lease.data(), 1, 1000);
  }
  EXPECT_EQ(pool.take(500).data(), first);
  EXPECT_EQ(pool.take(1000).data(), first);
  EXPECT_EQ(pool.growths(), 1);
}

TEST(BufferPool, BuffersOnLoanAreDistinctAndAligned) {
  BufferPool pool;
  std::vector<BufferPool::Lease> leases;
  for (std::size_t i = 1; i <= 20; ++i) {
    leases.push_back(pool.take(i * 100));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(leases.back().data()) % 64, 0U);
    std::memset(leases.back().data(), static_cast<int>(i), i * 100);
  }
  for (std::size_t i = 1; i <= 20; ++i) {
    EXPECT_EQ(leases[i - 1].data()[0], static_cast<std::byte>(i));
    EXPECT_EQ(leases[i - 1].data()[i * 100 - 1], static_cast<std::byte>(i));
  }
}

TEST(BufferPool, TakesTheSmallestThatFits) {
  BufferPool pool;
  const std::byte* small = nullptr;
  const std::byte* large = nullptr;
  {
    const BufferPool::Lease a = pool.take(10'000);
    const BufferPool::Lease b = pool.take(100);
    large = a.data();
    small = b.data();
  }
  EXPECT_EQ(pool.take(90).data(), small);
  EXPECT_EQ(pool.take(5000).data(), large);
  EXPECT_EQ(pool.growths(), 2);
}

TEST(BufferPool, GrowsAFreeBufferRatherThanAddingOne) {
  BufferPool pool;
  static_cast<void>(pool.take(100));
  static_cast<void>(pool.take(10'000));
  EXPECT_EQ(pool.growths(), 2);
  const BufferPool::Lease large = pool.take(10'000);
  const BufferPool::Lease other = pool.take(1);
  EXPECT_NE(large.data(), other.data());
  EXPECT_EQ(pool.growths(), 3);
}

TEST(BufferPool, NothingIsALease) {
  BufferPool pool;
  EXPECT_EQ(pool.take(0).data(), nullptr);
  EXPECT_EQ(pool.growths(), 0);
}

}  // namespace
}  // namespace cartesian
