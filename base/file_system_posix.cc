#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/file_system.h"

namespace cartesian {

namespace {

constexpr std::size_t kBufferBytes = std::size_t{256} << 10;
// Linux transfers at most 2 GiB - 4 KiB a call; smaller pieces also bound what a signal can delay.
constexpr std::size_t kMaxTransfer = std::size_t{1} << 30;

[[noreturn]] void fail(std::string_view action, const Path& path, std::string_view reason) {
  throw FileError(fmt::format("cannot {} {}: {}", action, path.string(), reason));
}

[[noreturn]] void fail(std::string_view action, const Path& path, int error) {
  fail(action, path, std::generic_category().message(error));
}

/// Repeats a system call that a signal interrupted.
template <class Call>
auto retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) {
    result = call();
  }
  return result;
}

/// Owns a file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

/// Opening a pipe that nobody writes to must not block: it is refused, as no regular file.
constexpr int kReadFlags = O_RDONLY | O_NONBLOCK;

int open_file(const Path& path, int flags, std::string_view action) {
  constexpr mode_t kMode = 0666;  // less the umask
  const int fd = retry([&] { return ::open(path.c_str(), flags | O_CLOEXEC, kMode); });
  if (fd < 0) {
    fail(action, path, errno);
  }
  return fd;
}

void sync_descriptor(int fd, const Path& path) {
  if (retry([&] { return ::fsync(fd); }) != 0) {
    fail("sync", path, errno);
  }
}

class PosixOutputFile final : public OutputFile {
 public:
  PosixOutputFile(int fd, Path path) : fd_(fd), path_(std::move(path)) {
    buffer_.reserve(kBufferBytes);
  }

  using OutputFile::append;
  void append(std::span<const std::byte> bytes) override {
    check(fd_.get() >= 0, "append to a closed file");
    if (buffer_.size() + bytes.size() > kBufferBytes) {
      flush();
    }
    if (bytes.size() >= kBufferBytes) {
      write_all(bytes);
    } else {
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    }
  }

  void flush() override {
    check(fd_.get() >= 0, "flush of a closed file");
    write_all(buffer_);
    buffer_.clear();
  }

  void sync() override {
    flush();
    sync_descriptor(fd_.get(), path_);
  }

  void close() override {
    flush();
    // Linux frees the descriptor whatever close() answers, so it is never repeated; network file
    // systems report a full disk or quota here.
    if (::close(fd_.release()) != 0 && errno != EINTR) {
      fail("close", path_, errno);
    }
  }

 private:
  void write_all(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const std::size_t size = std::min(bytes.size(), kMaxTransfer);
      const ssize_t written = retry([&] { return ::write(fd_.get(), bytes.data(), size); });
      if (written < 0) {
        fail("write to", path_, errno);
      }
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }

  Descriptor fd_;
  Path path_;
  std::vector<std::byte> buffer_;
};

class PosixMappedFile final : public MappedFile {
 public:
  PosixMappedFile(void* data, std::size_t size) : data_(data), size_(size) {}
  ~PosixMappedFile() override {
    if (size_ > 0) {
      ::munmap(data_, size_);
    }
  }
  PosixMappedFile(const PosixMappedFile&) = delete;
  PosixMappedFile& operator=(const PosixMappedFile&) = delete;

  std::span<const std::byte> bytes() const override {
    return {static_cast<const std::byte*>(data_), size_};
  }
  void forget(std::size_t offset, std::size_t size) const override {
    // Linux maps so much around a page that is touched, if it is in the page cache.
    constexpr std::size_t kAround = std::size_t{64} << 10;
    const std::size_t begin = offset / kAround * kAround;
    const std::size_t end = std::min(size_, (offset + size + kAround - 1) / kAround * kAround);
    if (size > 0) {  // only advice: it does not matter whether it is taken
      ::madvise(static_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
    }
  }

 private:
  void* data_;
  std::size_t size_;
};

class PosixFileLock final : public FileLock {
 public:
  explicit PosixFileLock(int fd) : fd_(fd) {}

 private:
  Descriptor fd_;
};

class PosixFileSystem final : public FileSystem {
 public:
  std::unique_ptr<OutputFile> create(const Path& path) override {
    return std::make_unique<PosixOutputFile>(
        open_file(path, O_WRONLY | O_CREAT | O_TRUNC, "create"), path);
  }

  std::unique_ptr<OutputFile> open_append(const Path& path) override {
    return std::make_unique<PosixOutputFile>(
        open_file(path, O_WRONLY | O_CREAT | O_APPEND, "open for appending"), path);
  }

  std::unique_ptr<MappedFile> map(const Path& path) override {
    const Descriptor fd(open_file(path, kReadFlags, "read"));
    const std::size_t size = regular_size(fd.get(), path);
    if (size == 0) {  // mmap() refuses empty ranges
      return std::make_unique<PosixMappedFile>(nullptr, 0);
    }
    void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
    if (data == MAP_FAILED) {
      fail("map", path, errno);
    }
    return std::make_unique<PosixMappedFile>(data, size);
  }

  std::string read(const Path& path) override {
    const Descriptor fd(open_file(path, kReadFlags, "read"));
    std::string contents;
    std::size_t used = 0;
    contents.resize(regular_size(fd.get(), path) + 1);  // one more, to meet the end in one pass
    while (true) {
      const std::size_t room = std::min(contents.size() - used, kMaxTransfer);
      const ssize_t got = retry([&] { return ::read(fd.get(), contents.data() + used, room); });
      if (got < 0) {
        fail("read", path, errno);
      }
      if (got == 0) {
        break;
      }
      used += static_cast<std::size_t>(got);
      if (used == contents.size()) {  // it grew, or is of a kind whose size is not known
        contents.resize(2 * contents.size() + kBufferBytes);
      }
    }
    contents.resize(used);
    return contents;
  }

  bool exists(const Path& path) override {
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0) {
      return true;
    }
    if (errno != ENOENT && errno != ENOTDIR) {
      fail("look up", path, errno);
    }
    return false;
  }

  std::uint64_t size(const Path& path) override {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) {
      fail("look up", path, errno);
    }
    if (!S_ISREG(info.st_mode)) {
      fail("look up the size of", path, "not a regular file");
    }
    return static_cast<std::uint64_t>(info.st_size);
  }

  bool same_file(const Path& a, const Path& b) override {
    struct stat first {};
    struct stat second {};
    return ::stat(a.c_str(), &first) == 0 && ::stat(b.c_str(), &second) == 0 &&
           first.st_dev == second.st_dev && first.st_ino == second.st_ino;
  }

  std::vector<std::string> list(const Path& directory) override {
    const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(directory.c_str()), ::closedir);
    if (!stream) {
      if (errno == ENOENT) {
        return {};
      }
      fail("list", directory, errno);
    }
    std::vector<std::string> names;
    while (true) {
      errno = 0;
      const dirent* entry = ::readdir(stream.get());
      if (entry == nullptr) {
        break;
      }
      const std::string_view name = static_cast<const char*>(entry->d_name);
      if (name != "." && name != "..") {
        names.emplace_back(name);
      }
    }
    if (errno != 0) {
      fail("list", directory, errno);
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  void create_directories(const Path& path) override {
    std::error_code error;
    std::vector<Path> parents;  // that get a new entry
    for (Path missing = path; !std::filesystem::exists(missing, error);
         missing = missing.parent_path()) {
      parents.push_back(missing.parent_path());
      if (missing == missing.parent_path()) {
        break;
      }
    }
    std::filesystem::create_directories(path, error);
    if (error) {
      fail("create directory", path, error.message());
    }
    if (!std::filesystem::is_directory(path, error)) {
      fail("create directory", path, ENOTDIR);
    }
    for (const Path& parent : parents) {
      sync_directory(parent);
    }
  }

  void rename(const Path& from, const Path& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) {
      fail(fmt::format("rename {} to", from.string()), to, errno);
    }
  }

  void remove_all(const Path& path) override {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error) {
      fail("remove", path, error.message());
    }
  }

  void sync_directory(const Path& path) override {
    const Path directory = path.empty() ? Path(".") : path;
    const Descriptor fd(open_file(directory, O_RDONLY | O_DIRECTORY, "open directory"));
    // Some network file systems cannot sync directories, and keep them durable themselves.
    if (retry([&] { return ::fsync(fd.get()); }) != 0 && errno != EINVAL && errno != ENOTSUP) {
      fail("sync directory", directory, errno);
    }
  }

  std::unique_ptr<FileLock> try_lock(const Path& path) override {
    Descriptor fd(open_file(path, O_RDWR | O_CREAT, "open"));
    if (retry([&] { return ::flock(fd.get(), LOCK_EX | LOCK_NB); }) == 0) {
      return std::make_unique<PosixFileLock>(fd.release());
    }
    if (errno == EWOULDBLOCK) {
      return nullptr;
    }
    // Some network file systems have no locks: better none than no run.
    if (errno != ENOSYS && errno != ENOLCK && errno != EOPNOTSUPP) {
      fail("lock", path, errno);
    }
    return std::make_unique<PosixFileLock>(fd.release());
  }

 private:
  static std::size_t regular_size(int fd, const Path& path) {
    struct stat info {};
    if (::fstat(fd, &info) != 0) {
      fail("look up", path, errno);
    }
    if (!S_ISREG(info.st_mode)) {
      fail("read", path, "not a regular file");
    }
    return static_cast<std::size_t>(info.st_size);
  }
};

}  // namespace

std::unique_ptr<FileSystem> make_posix_file_system() { return std::make_unique<PosixFileSystem>(); }

}  // namespace cartesian
