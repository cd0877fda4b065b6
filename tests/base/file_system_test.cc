#include "base/file_system.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

using Names = std::vector<std::string>;

std::string to_string(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class PosixFiles : public testing::Test {
 protected:
  void write(const Path& path, std::string_view text) {
    const auto file = files_->create(path);
    file->append(text);
    file->close();
  }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_ = make_posix_file_system();
};

TEST_F(PosixFiles, WritesReadsAndMaps) {
  const Path path = directory_ / "a";
  std::string expected;
  const auto file = files_->create(path);
  // Pieces below, at and above the size of the writer's buffer.
  for (const std::size_t size : {1U, 0U, 1000U, 262'143U, 262'144U, 262'145U, 3'000'000U, 5U}) {
    std::string piece(size, '\0');
    for (std::size_t i = 0; i < size; ++i) {
      piece[i] = static_cast<char>((i * 31 + size) % 251);
    }
    file->append(piece);
    expected += piece;
  }
  file->close();
  EXPECT_EQ(files_->size(path), expected.size());
  EXPECT_EQ(files_->read(path), expected);
  EXPECT_EQ(to_string(files_->map(path)->bytes()), expected);
}

TEST_F(PosixFiles, FlushShowsTheBytesToOthers) {
  const auto file = files_->create(directory_ / "a");
  file->append("abc");
  file->flush();
  EXPECT_EQ(files_->read(directory_ / "a"), "abc");
  file->append("def");
  file->sync();
  EXPECT_EQ(files_->read(directory_ / "a"), "abcdef");
}

TEST_F(PosixFiles, AnUnclosedFileStaysIncomplete) {
  {
    const auto file = files_->create(directory_ / "a");
    file->append("abc");
  }
  EXPECT_EQ(files_->read(directory_ / "a"), "");
}

TEST_F(PosixFiles, EmptyFilesCanBeMapped) {
  write(directory_ / "empty", "");
  EXPECT_TRUE(files_->map(directory_ / "empty")->bytes().empty());
  EXPECT_EQ(files_->read(directory_ / "empty"), "");
  EXPECT_EQ(files_->size(directory_ / "empty"), 0U);
}

TEST_F(PosixFiles, CreateTruncatesAndAppendAdds) {
  write(directory_ / "a", "longer text");
  write(directory_ / "a", "text");
  const auto file = files_->open_append(directory_ / "a");
  file->append("+1");
  file->close();
  files_->open_append(directory_ / "new")->close();
  EXPECT_EQ(files_->read(directory_ / "a"), "text+1");
  EXPECT_TRUE(files_->exists(directory_ / "new"));
}

TEST_F(PosixFiles, DescriptorsAreNotInherited) {
  const auto file = files_->create(directory_ / "a");
  int open = 0;
  for (int fd = 3; fd < 256; ++fd) {
    struct stat info {};
    struct stat mine {};
    if (::fstat(fd, &info) == 0 && ::stat((directory_ / "a").c_str(), &mine) == 0 &&
        info.st_ino == mine.st_ino && info.st_dev == mine.st_dev) {
      ++open;
      EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    }
  }
  EXPECT_EQ(open, 1);
}

TEST_F(PosixFiles, ListsSorted) {
  write(directory_ / "b", "");
  write(directory_ / "a", "");
  files_->create_directories(directory_ / "c/d");
  EXPECT_EQ(files_->list(directory_.path()), (Names{"a", "b", "c"}));
  EXPECT_EQ(files_->list(directory_ / "c/d"), Names{});
  EXPECT_EQ(files_->list(directory_ / "absent"), Names{});
}

TEST_F(PosixFiles, RenamesAndRemoves) {
  write(directory_ / "a", "new");
  write(directory_ / "b", "old");
  files_->rename(directory_ / "a", directory_ / "b");
  EXPECT_EQ(files_->read(directory_ / "b"), "new");
  EXPECT_FALSE(files_->exists(directory_ / "a"));
  files_->create_directories(directory_ / "tree/branch");
  write(directory_ / "tree/branch/leaf", "x");
  files_->remove_all(directory_ / "tree");
  files_->remove_all(directory_ / "tree");
  EXPECT_EQ(files_->list(directory_.path()), Names{"b"});
}

TEST_F(PosixFiles, CreatesDirectoriesThatMayExist) {
  files_->create_directories(directory_ / "x/y");
  files_->create_directories(directory_ / "x/y");
  files_->sync_directory(directory_ / "x/y");
  files_->sync_directory("");
}

TEST_F(PosixFiles, NamesThePathAndTheReason) {
  const Path absent = directory_ / "absent";
  const std::string name = absent.string();
  const auto refused = [&](auto action, const char* reason) {
    expect_error<FileError>(action, {name, reason});
  };
  refused([&] { files_->read(absent); }, "No such file");
  refused([&] { files_->map(absent); }, "No such file");
  refused([&] { files_->size(absent); }, "No such file");
  refused([&] { files_->create(absent / "a"); }, "No such file");
  refused([&] { files_->open_append(absent / "a"); }, "No such file");
  refused([&] { files_->rename(absent, directory_ / "b"); }, "No such file");
  refused([&] { files_->sync_directory(absent); }, "No such file");
  write(absent, "now a file");
  refused([&] { files_->create_directories(absent); }, "Not a directory");
  refused([&] { files_->create_directories(absent / "x"); }, "Not a directory");
  refused([&] { files_->list(absent); }, "Not a directory");
  EXPECT_FALSE(files_->exists(absent / "x"));
  const std::string directory = directory_.path().string();
  expect_error<FileError>([&] { files_->read(directory_.path()); }, {directory, "regular"});
  expect_error<FileError>([&] { files_->map(directory_.path()); }, {directory, "regular"});
  expect_error<FileError>([&] { files_->size(directory_.path()); }, {directory, "regular"});
  expect_error<FileError>([&] { files_->create(directory_.path()); }, {directory, "directory"});
}

TEST_F(PosixFiles, NamesAFullDisk) {
  if (!files_->exists("/dev/full")) {
    GTEST_SKIP() << "/dev/full is missing";
  }
  const auto file = files_->create("/dev/full");
  file->append("small pieces wait in a buffer");
  expect_error<FileError>([&] { file->flush(); }, {"/dev/full", "No space left on device"});
  expect_error<FileError>([&] { file->append(std::string(1 << 20, 'x')); },
                          {"/dev/full", "No space left on device"});
}

TEST_F(PosixFiles, APipeNobodyWritesToIsRefusedNotWaitedFor) {
  const Path fifo = directory_ / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  expect_error<FileError>([&] { files_->read(fifo); }, {fifo.string(), "not a regular file"});
  expect_error<FileError>([&] { files_->map(fifo); }, {fifo.string(), "not a regular file"});
}

TEST_F(PosixFiles, ALockIsHeldByOneAtATime) {
  const Path path = directory_ / "lock";
  auto lock = files_->try_lock(path);
  ASSERT_NE(lock, nullptr);
  EXPECT_EQ(files_->try_lock(path), nullptr);
  lock.reset();
  EXPECT_NE(files_->try_lock(path), nullptr);
  expect_error<FileError>([&] { files_->try_lock(directory_ / "absent" / "lock"); },
                          {"absent", "No such file"});
}

TEST_F(PosixFiles, OneFileMayHaveSeveralNames) {
  files_->write_atomically(directory_ / "a", "1");
  files_->write_atomically(directory_ / "b", "1");
  std::filesystem::create_hard_link(directory_ / "a", directory_ / "c");
  EXPECT_TRUE(files_->same_file(directory_ / "a", directory_ / "." / "a"));
  EXPECT_TRUE(files_->same_file(directory_ / "a", directory_ / "c"));
  EXPECT_FALSE(files_->same_file(directory_ / "a", directory_ / "b"));
  EXPECT_FALSE(files_->same_file(directory_ / "a", directory_ / "absent"));
}

TEST_F(PosixFiles, SurvivesShortWrites) {
  // A pipe whose reader is slow takes large writes in pieces.
  const Path fifo = directory_ / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const int fd = ::open(fifo.c_str(), O_RDONLY);
    std::string buffer(7001, '\0');
    std::size_t total = 0;
    ssize_t got = 0;
    while ((got = ::read(fd, buffer.data(), buffer.size())) > 0) {
      total += static_cast<std::size_t>(got);
    }
    ::_exit(total == 1'500'000 ? 0 : 1);
  }
  const auto file = files_->create(fifo);
  file->append(std::string(1'500'000, 'x'));
  file->close();
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(PosixFiles, WritesAtomically) {
  files_->write_atomically(directory_ / "a", "one");
  files_->write_atomically(directory_ / "a", "two");
  EXPECT_EQ(files_->read(directory_ / "a"), "two");
  EXPECT_EQ(files_->list(directory_.path()), Names{"a"});
}

class WriteAtomically : public testing::TestWithParam<Fault> {};

TEST_P(WriteAtomically, LeavesTheOldOrTheNewContents) {
  const TemporaryDirectory directory;
  const auto inner = make_posix_file_system();
  const Path path = directory / "a";
  FaultyFileSystem counting(*inner);
  counting.write_atomically(path, "new contents");
  ASSERT_GE(counting.operations(), 5);
  for (std::int64_t n = 0; n < counting.operations(); ++n) {
    inner->write_atomically(path, "old");
    FaultyFileSystem faulty(*inner);
    faulty.fail_at(n, GetParam());
    EXPECT_THROW(faulty.write_atomically(path, "new contents"), FileError) << n;
    EXPECT_TRUE(faulty.failed());
    const std::string found = inner->read(path);
    EXPECT_TRUE(found == "old" || found == "new contents") << n << ": " << found;
    if (GetParam() == Fault::no_space) {
      EXPECT_EQ(inner->list(directory.path()), Names{"a"}) << n;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Faults, WriteAtomically,
                         testing::Values(Fault::no_space, Fault::crash, Fault::power_cut));

TEST(FaultyFileSystem, EverythingFailsAfterACrash) {
  const TemporaryDirectory directory;
  const auto inner = make_posix_file_system();
  FaultyFileSystem files(*inner);
  const auto file = files.create(directory / "a");
  file->append("12345678");
  files.fail_at(files.operations(), Fault::crash);
  EXPECT_THROW(file->append("abcdefgh"), FileError);
  EXPECT_THROW(file->close(), FileError);
  EXPECT_THROW(files.read(directory / "a"), FileError);
  EXPECT_THROW(files.exists(directory / "a"), FileError);
  EXPECT_THROW(files.create(directory / "b"), FileError);
  EXPECT_EQ(inner->read(directory / "a"), "12345678abcd");
}

TEST(FaultyFileSystem, AFullDiskFailsOnce) {
  const TemporaryDirectory directory;
  const auto inner = make_posix_file_system();
  FaultyFileSystem files(*inner);
  const auto file = files.create(directory / "a");
  files.fail_at(files.operations(), Fault::no_space);
  expect_error<FileError>([&] { file->append("abcd"); },
                          {(directory / "a").string(), "No space left on device"});
  file->append("xy");
  file->close();
  EXPECT_EQ(files.read(directory / "a"), "abxy");
}

TEST(FaultyFileSystem, APowerCutLosesWhatWasNotSynced) {
  const TemporaryDirectory directory;
  const auto inner = make_posix_file_system();
  FaultyFileSystem files(*inner);
  const auto file = files.create(directory / "a");
  file->append("synced");
  file->sync();
  file->append(" lost");
  file->close();
  files.rename(directory / "a", directory / "b");  // the loss follows the file
  files.fail_at(files.operations(), Fault::power_cut);
  EXPECT_THROW(files.sync_directory(directory.path()), FileError);
  EXPECT_EQ(inner->read(directory / "b"), "synced");
}

}  // namespace
}  // namespace cartesian
