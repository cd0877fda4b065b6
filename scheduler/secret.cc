#include "scheduler/secret.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <cstring>

#include "base/error.h"
#include "scheduler/wire.h"

namespace cartesian {

namespace {

constexpr std::string_view kDigits = "0123456789abcdef";

void fill_random(std::uint8_t* bytes, std::size_t size) {
  if (RAND_bytes(bytes, static_cast<int>(size)) != 1) {
    throw Error("the system's source of random bytes failed");
  }
}

int digit_value(char digit) {
  const std::size_t value =
      kDigits.find(digit >= 'A' && digit <= 'F' ? static_cast<char>(digit - 'A' + 'a') : digit);
  return value == std::string_view::npos ? -1 : static_cast<int>(value);
}

}  // namespace

Nonce random_nonce() {
  Nonce nonce;
  fill_random(nonce.data(), nonce.size());
  return nonce;
}

std::uint64_t random_id() {
  const Nonce nonce = random_nonce();
  std::uint64_t id = 0;
  std::memcpy(&id, nonce.data(), sizeof(id));
  return id;
}

bool same_proof(const Proof256& a, const Proof256& b) {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

JobSecret JobSecret::random() {
  JobSecret secret;
  fill_random(secret.key_.data(), secret.key_.size());
  return secret;
}

JobSecret JobSecret::from_hex(std::string_view text) {
  JobSecret secret;
  bool right = text.size() == 2 * secret.key_.size();
  for (std::size_t i = 0; right && i < secret.key_.size(); ++i) {
    const int high = digit_value(text[2 * i]);
    const int low = digit_value(text[2 * i + 1]);
    right = high >= 0 && low >= 0;
    secret.key_[i] = static_cast<std::uint8_t>(right ? 16 * high + low : 0);
  }
  if (!right) {
    throw ConfigError("the job's secret must be 64 hexadecimal digits");
  }
  return secret;
}

std::string JobSecret::hex() const {
  std::string text;
  for (const std::uint8_t byte : key_) {
    text += kDigits[byte >> 4U];
    text += kDigits[byte & 15U];
  }
  return text;
}

Proof256 JobSecret::prove(std::string_view role, std::string_view transcript,
                          const Nonce& nonce) const {
  WireWriter message;  // lengths keep the parts apart
  message.put_text(role);
  message.put_text(transcript);
  message.put_bytes({reinterpret_cast<const char*>(nonce.data()), nonce.size()});
  const std::string bytes = message.take();
  Proof256 proof{};
  unsigned int size = 0;
  const auto* done =
      HMAC(EVP_sha256(), key_.data(), static_cast<int>(key_.size()),
           reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), proof.data(), &size);
  if (done == nullptr || size != proof.size()) {
    throw Error("HMAC-SHA256 failed");
  }
  return proof;
}

}  // namespace cartesian
