#pragma once
// MemoryFiles: read-only files in memory. A mapped one is a heap block of exactly its size, so that
// AddressSanitizer sees every read beyond it.

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file_system.h"

namespace cartesian {

class MemoryFiles final : public FileSystem {
 public:
  void set(const Path& path, std::string contents) { files_[path] = std::move(contents); }

  std::unique_ptr<MappedFile> map(const Path& path) override {
    class Mapped final : public MappedFile {
     public:
      explicit Mapped(const std::string& contents)
          : bytes_(std::make_unique<std::byte[]>(contents.size())), size_(contents.size()) {
        const auto from = std::as_bytes(std::span(contents));
        std::copy(from.begin(), from.end(), bytes_.get());
      }
      std::span<const std::byte> bytes() const override { return {bytes_.get(), size_}; }

     private:
      std::unique_ptr<std::byte[]> bytes_;
      std::size_t size_;
    };
    return std::make_unique<Mapped>(read(path));
  }
  std::string read(const Path& path) override {
    const auto found = files_.find(path);
    if (found == files_.end()) {
      throw FileError("cannot read " + path.string() + ": No such file or directory");
    }
    return found->second;
  }
  bool exists(const Path& path) override { return files_.count(path) > 0; }
  std::uint64_t size(const Path& path) override { return read(path).size(); }
  bool same_file(const Path& a, const Path& b) override { return a == b && exists(a); }
  std::vector<std::string> list(const Path&) override { return {}; }

  std::unique_ptr<OutputFile> create(const Path& path) override { refuse(path); }
  std::unique_ptr<OutputFile> open_append(const Path& path) override { refuse(path); }
  void create_directories(const Path& path) override { refuse(path); }
  void rename(const Path& from, const Path&) override { refuse(from); }
  void remove_all(const Path& path) override { refuse(path); }
  void sync_directory(const Path& path) override { refuse(path); }
  std::unique_ptr<FileLock> try_lock(const Path& path) override { refuse(path); }

 private:
  [[noreturn]] static void refuse(const Path& path) {
    throw FileError("cannot change " + path.string() + ": Read-only file system");
  }

  std::map<Path, std::string> files_;
};

}  // namespace cartesian
