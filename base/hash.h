#pragma once
// XXH3 64-bit hashes of bytes: checksums of files. Not cryptographic. Stable across machines.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace cartesian {

std::uint64_t hash_bytes(std::span<const std::byte> bytes);
std::uint64_t hash_bytes(std::string_view text);

/// Sixteen lower-case hexadecimal digits.
std::string hash_hex(std::uint64_t hash);

/// The hash of a stream, piece by piece: digest() is hash_bytes() of all pieces joined. Not
/// thread-safe.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  void update(std::span<const std::byte> bytes);
  void update(std::string_view text) { update(std::as_bytes(std::span(text))); }
  std::uint64_t digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cartesian
