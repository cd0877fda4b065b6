#pragma once
// What keeps strangers out: a secret of the job, nonces, and proofs that one knows the secret.
// Proofs guard the door only: the stream that follows is neither encrypted nor signed.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace cartesian {

using Nonce = std::array<std::uint8_t, 32>;
using Proof256 = std::array<std::uint8_t, 32>;

/// From the system's source of random bytes. Throws Error if that fails.
Nonce random_nonce();
std::uint64_t random_id();

/// Equal, in a time that depends on nothing.
bool same_proof(const Proof256& a, const Proof256& b);

/// 32 random bytes that the launcher hands to every rank of one job. Immutable, thread-safe.
class JobSecret {
 public:
  /// A new one.
  static JobSecret random();
  /// From its text form. Throws ConfigError, without repeating the text, if it is not 64
  /// hexadecimal digits.
  static JobSecret from_hex(std::string_view text);
  std::string hex() const;

  /// HMAC-SHA256 over `role`, `transcript` and `nonce`. Each side has a role of its own, so that no
  /// proof can be sent back to whom it came from.
  Proof256 prove(std::string_view role, std::string_view transcript, const Nonce& nonce) const;

 private:
  std::array<std::uint8_t, 32> key_{};
};

}  // namespace cartesian
