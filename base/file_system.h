#pragma once
// FileSystem: the one seam through which files are touched, so that a full disk or a crash is a
// unit test. All calls throw FileError, which names the path and the system's reason.
// Implementations are thread-safe.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cartesian {

using Path = std::filesystem::path;

/// A file being written. Destroying it without close() leaves an incomplete file behind, as a crash
/// would.
class OutputFile {
 public:
  virtual ~OutputFile() = default;
  virtual void append(std::span<const std::byte> bytes) = 0;
  void append(std::string_view text) { append(std::as_bytes(std::span(text))); }
  /// Hands what was appended to the operating system, so that other processes see it.
  virtual void flush() = 0;
  /// Makes what was appended survive a power cut.
  virtual void sync() = 0;
  virtual void close() = 0;
};

/// A read-only view of a whole file in memory.
class MappedFile {
 public:
  virtual ~MappedFile() = default;
  virtual std::span<const std::byte> bytes() const = 0;
  /// The memory that holds these bytes may be used for something else; they can still be read, more
  /// slowly the first time. For files larger than memory. REQUIRES: they are within bytes().
  virtual void forget(std::size_t /*offset*/, std::size_t /*size*/) const {}
};

/// Held until it is destroyed or the process ends, however it ends.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  /// Creates or truncates.
  virtual std::unique_ptr<OutputFile> create(const Path& path) = 0;
  /// Opens for appending; creates if absent.
  virtual std::unique_ptr<OutputFile> open_append(const Path& path) = 0;
  virtual std::unique_ptr<MappedFile> map(const Path& path) = 0;
  virtual std::string read(const Path& path) = 0;

  virtual bool exists(const Path& path) = 0;
  virtual std::uint64_t size(const Path& path) = 0;
  /// Whether both exist and are one file, whatever their names.
  virtual bool same_file(const Path& a, const Path& b) = 0;
  /// Names (not paths) of a directory's entries, sorted. Empty if the directory does not exist.
  virtual std::vector<std::string> list(const Path& directory) = 0;
  /// What is created survives a power cut.
  virtual void create_directories(const Path& path) = 0;
  /// Atomic within a file system.
  virtual void rename(const Path& from, const Path& to) = 0;
  /// Files and whole directories; absent is fine.
  virtual void remove_all(const Path& path) = 0;
  /// Makes a directory's entries survive a power cut.
  virtual void sync_directory(const Path& path) = 0;
  /// Locks the file `path`, creating it if absent; null if another process holds it. Where the file
  /// system has no locks, everybody gets one.
  virtual std::unique_ptr<FileLock> try_lock(const Path& path) = 0;

  /// Writes a temporary file beside `path`, syncs it, and renames it to `path`.
  void write_atomically(const Path& path, std::string_view contents);
};

/// The machine's own files.
std::unique_ptr<FileSystem> make_posix_file_system();

}  // namespace cartesian
