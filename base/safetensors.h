#pragma once
// Safetensors files (https://github.com/huggingface/safetensors#format): an 8-byte little-endian
// header length, a JSON header {name: {dtype, shape, data_offsets}, "__metadata__": {string:
// string}}, then the tensors' bytes. Reading trusts nothing: every field of the header is checked
// against the file before use; FormatError names the file and the tensor.

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_system.h"

namespace cartesian {

struct SafetensorsEntry {
  /// As the format spells it: "F32", "BF16", "I16", "I32", "I64", ...
  std::string dtype;
  std::vector<std::int64_t> shape;
  /// Not necessarily aligned: the format packs tensors without gaps.
  std::span<const std::byte> bytes;
};

/// A mapped, validated file. Its spans live as long as it does. Thread-safe after construction.
class SafetensorsReader {
 public:
  SafetensorsReader(FileSystem& files, const Path& path);

  const Path& path() const { return path_; }
  const std::map<std::string, SafetensorsEntry, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Throws FormatError, naming the file, if there is no such tensor.
  const SafetensorsEntry& at(std::string_view name) const;
  /// Copies a tensor into `out` as float32. Accepts F32, BF16 and F16; throws FormatError, naming
  /// file and tensor, on another dtype or when the number of elements is not out.size().
  void read_float32(std::string_view name, std::span<float> out) const;

 private:
  Path path_;
  std::unique_ptr<MappedFile> file_;
  std::map<std::string, SafetensorsEntry, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Writes tensors in the order given, packed from an offset that is a multiple of 8, in one pass.
/// Does not sync; the caller owns durability. Returns the XXH3 64-bit hash of the file's bytes.
/// REQUIRES: names are distinct, dtypes the format's own, and bytes fit the shapes.
std::uint64_t write_safetensors(OutputFile& file,
                                std::span<const std::pair<std::string, SafetensorsEntry>> tensors,
                                const std::map<std::string, std::string>& metadata);

}  // namespace cartesian
