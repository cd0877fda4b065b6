#pragma once
// UnsyncedFileSystem: another file system's files, never forced to the disk: for tests that write
// hundreds of small files and simulate power cuts instead of waiting for the disk. As thread-safe
// as what it wraps.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/file_system.h"

namespace cartesian {

class UnsyncedFileSystem final : public FileSystem {
 public:
  explicit UnsyncedFileSystem(std::unique_ptr<FileSystem> inner) : inner_(std::move(inner)) {}

  std::unique_ptr<OutputFile> create(const Path& path) override {
    return std::make_unique<File>(inner_->create(path));
  }
  std::unique_ptr<OutputFile> open_append(const Path& path) override {
    return std::make_unique<File>(inner_->open_append(path));
  }
  std::unique_ptr<MappedFile> map(const Path& path) override { return inner_->map(path); }
  std::string read(const Path& path) override { return inner_->read(path); }
  bool exists(const Path& path) override { return inner_->exists(path); }
  std::uint64_t size(const Path& path) override { return inner_->size(path); }
  bool same_file(const Path& a, const Path& b) override { return inner_->same_file(a, b); }
  std::vector<std::string> list(const Path& directory) override { return inner_->list(directory); }
  void create_directories(const Path& path) override { inner_->create_directories(path); }
  void rename(const Path& from, const Path& to) override { inner_->rename(from, to); }
  void remove_all(const Path& path) override { inner_->remove_all(path); }
  void sync_directory(const Path&) override {}
  std::unique_ptr<FileLock> try_lock(const Path& path) override { return inner_->try_lock(path); }

 private:
  class File final : public OutputFile {
   public:
    explicit File(std::unique_ptr<OutputFile> inner) : inner_(std::move(inner)) {}
    using OutputFile::append;
    void append(std::span<const std::byte> bytes) override { inner_->append(bytes); }
    void flush() override { inner_->flush(); }
    void sync() override {}
    void close() override { inner_->close(); }

   private:
    std::unique_ptr<OutputFile> inner_;
  };

  std::unique_ptr<FileSystem> inner_;
};

}  // namespace cartesian
