#include "runtime/data/staged_files.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

using Names = std::vector<std::string>;

void stage(StagedFiles& staged, const Path& path, const std::string& text) {
  const auto file = staged.create(path);
  file->append(text);
  file->sync();
  file->close();
}

void publish_pair(FileSystem& files, const TemporaryDirectory& directory, const std::string& text) {
  StagedFiles staged(files);
  stage(staged, directory / "a", text);
  stage(staged, directory / "b", text);
  staged.publish();
}

TEST(StagedFiles, NothingAppearsBeforePublishing) {
  const TemporaryDirectory directory;
  const auto files = make_posix_file_system();
  {
    StagedFiles staged(*files);
    stage(staged, directory / "a", "x");
    EXPECT_FALSE(files->exists(directory / "a"));
  }
  EXPECT_EQ(files->list(directory.path()), Names{});
}

TEST(StagedFiles, ReplacesWhatWasThere) {
  const TemporaryDirectory directory;
  const auto files = make_posix_file_system();
  publish_pair(*files, directory, "old");
  publish_pair(*files, directory, "new");
  EXPECT_EQ(files->list(directory.path()), (Names{"a", "b"}));
  EXPECT_EQ(files->read(directory / "a"), "new");
  EXPECT_EQ(files->read(directory / "b"), "new");
}

TEST(StagedFiles, NeverReplacesADirectory) {
  const TemporaryDirectory directory;
  const auto files = make_posix_file_system();
  files->create_directories(directory / "a/precious");
  expect_error<FileError>([&] { publish_pair(*files, directory, "new"); },
                          {(directory / "a").string(), "not a regular file"});
  EXPECT_TRUE(files->exists(directory / "a/precious"));
}

TEST(StagedFiles, NeverMixesOldAndNew) {
  const TemporaryDirectory directory;
  const auto inner = make_posix_file_system();
  FaultyFileSystem counting(*inner);
  publish_pair(counting, directory, "new");
  for (const Fault fault : {Fault::no_space, Fault::crash, Fault::power_cut}) {
    for (std::int64_t n = 0; n < counting.operations(); ++n) {
      inner->remove_all(directory / "a.tmp");
      inner->remove_all(directory / "b.tmp");
      publish_pair(*inner, directory, "old");
      FaultyFileSystem faulty(*inner);
      faulty.fail_at(n, fault);
      EXPECT_THROW(publish_pair(faulty, directory, "new"), FileError) << n;
      std::string found;
      for (const char* name : {"a", "b"}) {
        found += inner->exists(directory / name) ? inner->read(directory / name) : "-";
      }
      const bool whole = found == "oldold" || found == "newnew" || found == "--";
      const bool missing = found == "old-" || found == "new-";  // the last name goes first
      EXPECT_TRUE(whole || missing) << n << ": " << found;
      if (fault == Fault::no_space) {
        EXPECT_FALSE(inner->exists(directory / "a.tmp")) << n;
        EXPECT_FALSE(inner->exists(directory / "b.tmp")) << n;
      }
    }
  }
}

}  // namespace
}  // namespace cartesian
