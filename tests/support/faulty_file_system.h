#pragma once
// FaultyFileSystem: another file system's files, on a disk that fills up or a machine that crashes
// at a chosen operation. A test first counts the operations of an action, then repeats it once for
// every operation that may fail. Thread-safe.
//
//   FaultyFileSystem files(inner);
//   save(files);
//   for (std::int64_t n = 0, count = files.operations(); n < count; ++n) {
//     FaultyFileSystem faulty(inner);
//     faulty.fail_at(n, Fault::crash);
//     EXPECT_THROW(save(faulty), FileError);
//     ... what `inner` holds now must still load ...
//   }

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file_system.h"

namespace cartesian {

enum class Fault : std::uint8_t {
  /// The chosen operation alone fails, as on a full disk; an append leaves half its bytes.
  no_space,
  /// The process dies at the chosen operation (an append leaves half its bytes): it and all later
  /// ones fail, reads too.
  crash,
  /// As crash, and of every file the bytes that were not synced are lost. (Names are kept.)
  power_cut,
};

class FaultyFileSystem final : public FileSystem {
 public:
  /// `inner` must outlive this and all files opened through it.
  explicit FaultyFileSystem(FileSystem& inner) : inner_(inner) {}

  /// Operation number `operation`, counted from 0 since construction, meets `fault`.
  void fail_at(std::int64_t operation, Fault fault) {
    const std::lock_guard lock(mutex_);
    fail_at_ = operation;
    fault_ = fault;
  }
  /// Operations so far that change files or directories: creating, appending, flushing, syncing,
  /// closing, renaming, removing.
  std::int64_t operations() const {
    const std::lock_guard lock(mutex_);
    return operations_;
  }
  /// Whether the fault has happened.
  bool failed() const {
    const std::lock_guard lock(mutex_);
    return failed_;
  }

  std::unique_ptr<OutputFile> create(const Path& path) override {
    return open(path, "create", [&] { return inner_.create(path); });
  }
  std::unique_ptr<OutputFile> open_append(const Path& path) override {
    return open(path, "open for appending", [&] { return inner_.open_append(path); });
  }
  std::unique_ptr<MappedFile> map(const Path& path) override {
    check_alive("map", path);
    return inner_.map(path);
  }
  std::string read(const Path& path) override {
    check_alive("read", path);
    return inner_.read(path);
  }
  bool exists(const Path& path) override {
    check_alive("look up", path);
    return inner_.exists(path);
  }
  std::uint64_t size(const Path& path) override {
    check_alive("look up", path);
    return inner_.size(path);
  }
  bool same_file(const Path& a, const Path& b) override {
    check_alive("look up", a);
    return inner_.same_file(a, b);
  }
  std::vector<std::string> list(const Path& directory) override {
    check_alive("list", directory);
    return inner_.list(directory);
  }
  void create_directories(const Path& path) override {
    change("create directory", path, [&] { inner_.create_directories(path); });
  }
  void rename(const Path& from, const Path& to) override {
    change("rename to", to, [&] {
      inner_.rename(from, to);
      drop_records(to);
      move_records(from, to);
    });
  }
  void remove_all(const Path& path) override {
    change("remove", path, [&] {
      inner_.remove_all(path);
      drop_records(path);
    });
  }
  void sync_directory(const Path& path) override {
    change("sync directory", path, [&] { inner_.sync_directory(path); });
  }
  std::unique_ptr<FileLock> try_lock(const Path& path) override {
    check_alive("lock", path);
    return inner_.try_lock(path);
  }

 private:
  /// What of a file would survive a power cut. Its path follows renames.
  struct Record {
    Path path;
    std::uint64_t written = 0;
    std::uint64_t synced = 0;
  };

  class File final : public OutputFile {
   public:
    File(FaultyFileSystem& owner, std::unique_ptr<OutputFile> inner, std::shared_ptr<Record> record)
        : owner_(owner), inner_(std::move(inner)), record_(std::move(record)) {}

    using OutputFile::append;
    void append(std::span<const std::byte> bytes) override {
      const auto write = [&](std::span<const std::byte> part) {
        inner_->append(part);
        record_->written += part.size();
      };
      owner_.change(
          "write to", record_->path, [&] { write(bytes); },
          [&] {
            write(bytes.first(bytes.size() / 2));
            inner_->flush();
          });
    }
    void flush() override {
      owner_.change("flush", record_->path, [&] { inner_->flush(); });
    }
    void sync() override {
      owner_.change("sync", record_->path, [&] {
        inner_->sync();
        record_->synced = record_->written;
      });
    }
    void close() override {
      owner_.change("close", record_->path, [&] { inner_->close(); });
    }

   private:
    FaultyFileSystem& owner_;
    std::unique_ptr<OutputFile> inner_;
    std::shared_ptr<Record> record_;
  };

  template <class Open>
  std::unique_ptr<OutputFile> open(const Path& path, const char* action, Open open_inner) {
    std::unique_ptr<OutputFile> file;
    auto record = std::make_shared<Record>();
    change(action, path, [&] {
      file = open_inner();
      const std::uint64_t size = inner_.size(path);
      *record = {path, size, size};
      drop_records(path);
      records_.push_back(record);
    });
    return std::make_unique<File>(*this, std::move(file), std::move(record));
  }

  /// Counts an operation and performs it, or fails it after doing `torn`, the part that may still
  /// happen.
  template <class Perform, class Torn>
  void change(const char* action, const Path& path, Perform perform, Torn torn) {
    const std::lock_guard lock(mutex_);
    if (dead_) {
      refuse(action, path, "simulated crash");
    }
    if (operations_++ != fail_at_) {
      perform();
      return;
    }
    failed_ = true;
    torn();
    if (fault_ == Fault::no_space) {
      refuse(action, path, "No space left on device");
    }
    dead_ = true;
    if (fault_ == Fault::power_cut) {
      lose_unsynced();
    }
    refuse(action, path, "simulated crash");
  }
  template <class Perform>
  void change(const char* action, const Path& path, Perform perform) {
    change(action, path, perform, [] {});
  }

  void check_alive(const char* action, const Path& path) const {
    const std::lock_guard lock(mutex_);
    if (dead_) {
      refuse(action, path, "simulated crash");
    }
  }

  [[noreturn]] static void refuse(const char* action, const Path& path, const char* reason) {
    throw FileError("cannot " + std::string(action) + " " + path.string() + ": " + reason);
  }

  static bool is_inside(const Path& path, const Path& directory) {
    const Path tail = path.lexically_relative(directory);
    return !tail.empty() && *tail.begin() != "..";  // "." for the directory itself
  }

  // Called with mutex_ held: what was at `path` or below is gone.
  void drop_records(const Path& path) {
    std::erase_if(records_, [&](const auto& record) { return is_inside(record->path, path); });
  }

  // Called with mutex_ held.
  void move_records(const Path& from, const Path& to) {
    for (const auto& record : records_) {
      if (record->path == from) {
        record->path = to;
      } else if (is_inside(record->path, from)) {
        record->path = to / record->path.lexically_relative(from);
      }
    }
  }

  // Called with mutex_ held.
  void lose_unsynced() {
    for (const auto& record : records_) {
      if (record->synced < record->written && inner_.exists(record->path)) {
        const std::string kept = inner_.read(record->path).substr(0, record->synced);
        const auto file = inner_.create(record->path);
        file->append(kept);
        file->close();
      }
    }
  }

  FileSystem& inner_;
  mutable std::mutex mutex_;                      // guards all below
  std::vector<std::shared_ptr<Record>> records_;  // of files opened for writing
  std::int64_t operations_ = 0;
  std::int64_t fail_at_ = -1;
  Fault fault_ = Fault::no_space;
  bool failed_ = false;
  bool dead_ = false;
};

}  // namespace cartesian
