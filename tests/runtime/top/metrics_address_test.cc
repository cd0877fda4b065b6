#include "runtime/top/metrics_address.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"

namespace cartesian {
namespace {

TEST(MetricsAddress, Forms) {
  const MetricsAddress plain{"node-3.local", 9400};
  for (const char* text :
       {"node-3.local:9400", "http://node-3.local:9400", "http://node-3.local:9400/",
        "http://node-3.local:9400/metrics", "node-3.local:9400/metrics"}) {
    EXPECT_EQ(parse_metrics_address(text), plain) << text;
  }
  EXPECT_EQ(parse_metrics_address("http://[::1]:80/metrics"), (MetricsAddress{"::1", 80}));
  EXPECT_EQ(plain.text(), "node-3.local:9400");
  EXPECT_EQ((MetricsAddress{"::1", 80}).text(), "[::1]:80");
}

TEST(MetricsAddress, Others) {
  for (const char* text : {"", "host", ":9400", "host:", "host:0", "host:65536", "host:-1",
                           "host:9400x", "::1:9400", "https://host:9400", "host:1/other", "us er:1",
                           "user@host:1", "a/b:1", "[]:1", "h\x1b:1"}) {
    EXPECT_EQ(parse_metrics_address(text), std::nullopt) << text;
  }
}

TEST(MetricsTarget, AddressOrRunDirectory) {
  const auto files = make_posix_file_system();
  const MetricsTarget address(*files, "localhost:9400");
  EXPECT_FALSE(address.is_directory());
  EXPECT_EQ(address.find(), (MetricsAddress{"localhost", 9400}));
  EXPECT_THROW(MetricsTarget(*files, "no/such/run"), ConfigError);

  const Path run = Path(testing::TempDir()) / "metrics_target";
  files->remove_all(run);
  files->create_directories(run);
  const MetricsTarget target(*files, run.string());
  EXPECT_TRUE(target.is_directory());
  EXPECT_EQ(target.find(), std::nullopt);
  files->write_atomically(run / "metrics_address", "http://127.0.0.1:4333/metrics\n");
  EXPECT_EQ(target.find(), (MetricsAddress{"127.0.0.1", 4333}));
  files->write_atomically(run / "metrics_address", "nowhere\n");
  EXPECT_THROW(target.find(), FormatError);
  files->remove_all(run);
}

}  // namespace
}  // namespace cartesian
