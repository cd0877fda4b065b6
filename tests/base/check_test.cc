#include "base/check.h"

#include <gtest/gtest.h>

namespace cartesian {
namespace {

TEST(CheckDeathTest, NamesItsPlace) {
  check(true, "holds");
  EXPECT_DEATH(check(false, "an invariant"), "check_test.cc:[0-9]+: .*an invariant");
}

}  // namespace
}  // namespace cartesian
