#include "runtime/train/coordinator_address.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tests/support/expect_error.h"

namespace cartesian {
namespace {

std::vector<std::string> never(const std::string& host) {
  ADD_FAILURE() << "looked up: " << host;
  return {};
}

Resolver answer(std::vector<std::string> addresses) {
  return [addresses = std::move(addresses)](const std::string& host) {
    EXPECT_EQ(host, "node0");
    return addresses;
  };
}

TEST(CoordinatorAddress, AnAddressThatIsGivenIsUsed) {
  EXPECT_EQ(coordinator_address("10.0.0.7", "node0", "node1", never), "10.0.0.7");
  EXPECT_EQ(coordinator_address("10.0.0.7", "node0", "node0", never), "10.0.0.7");
  EXPECT_EQ(coordinator_address("127.0.0.1", "node0", "node0", never), "127.0.0.1");
}

TEST(CoordinatorAddress, RanksOfRank0sHostNeedNoName) {
  EXPECT_EQ(coordinator_address("0.0.0.0", "node0", "node0", never), "127.0.0.1");
  EXPECT_EQ(coordinator_address("::", "node0", "node0", never), "::1");
}

TEST(CoordinatorAddress, OthersLookTheNameUp) {
  const Resolver found = answer({"127.0.1.1", "fd00::1", "10.0.0.7", "10.1.0.7"});
  EXPECT_EQ(coordinator_address("0.0.0.0", "node0", "node1", found), "10.0.0.7");
  EXPECT_EQ(coordinator_address("::", "node0", "node1", found), "fd00::1");
}

TEST(CoordinatorAddress, WhatCannotBeReachedIsRefused) {
  const auto refused = [](const std::string& address, const Resolver& resolver,
                          const std::string& why) {
    expect_error<ConfigError>(
        [&] { coordinator_address(address, "node0", "node1", resolver); },
        {"scheduler.address = \"" + address + "\": ranks on node1 cannot reach rank 0 there" + why +
         "; set it to an address of node0 that the other hosts reach"});
  };
  refused("127.0.0.1", never, "");
  refused("0.0.0.0", answer({"127.0.1.1", "fd00::1"}), ", since node0 has no other address there");
  const auto unknown = [](const std::string&) -> std::vector<std::string> {
    throw std::runtime_error("Host not found");
  };
  refused("0.0.0.0", unknown, ", since node0 is not known there (Host not found)");
}

}  // namespace
}  // namespace cartesian
