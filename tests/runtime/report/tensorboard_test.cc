// tests/cli/report_test.py reads whole files with a reader of its own.

#include "runtime/report/tensorboard.h"

#include <gtest/gtest.h>

namespace cartesian {
namespace {

TEST(TensorboardTest, ChecksumsAreThoseOfRfc3720) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43U);
  EXPECT_EQ(crc32c(""), 0U);
}

TEST(TensorboardTest, TheFirstRecordIsTheVersions) {
  RunData run;
  const std::string file = make_event_file(run);
  const std::string event(
      "\x09\0\0\0\0\0\0\0\0\x10\0\x1a\x0d"
      "brain.Event:2",
      26);
  ASSERT_EQ(file.size(), 8 + 4 + event.size() + 4);
  EXPECT_EQ(file.substr(12, event.size()), event);
}

}  // namespace
}  // namespace cartesian
