#include "scheduler/secret.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "tests/support/expect_error.h"

namespace cartesian {
namespace {

TEST(JobSecret, TextFormGoesRoundTrip) {
  const JobSecret secret = JobSecret::random();
  EXPECT_EQ(secret.hex().size(), 64U);
  EXPECT_EQ(JobSecret::from_hex(secret.hex()).hex(), secret.hex());
  EXPECT_NE(JobSecret::random().hex(), secret.hex());
}

TEST(JobSecret, OtherTextsAreRefusedAndNotRepeated) {
  const std::string good = JobSecret::random().hex();
  for (const std::string& text :
       {std::string(), good.substr(1), good + "0", "g" + good.substr(1), std::string(64, ' ')}) {
    expect_error<ConfigError>([&] { JobSecret::from_hex(text); }, {"64 hexadecimal"});
  }
  try {
    JobSecret::from_hex("hunter2");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(std::string(error.what()).find("hunter2"), std::string::npos);
  }
}

/// HMAC-SHA256 by Python's hmac module over the 32-byte key 00 01 ... 1f, the message being
/// "\5\0\0\0agent" "\3\0\0\0abc" and a nonce of 32 bytes 0x42.
TEST(JobSecret, ProofIsHmacSha256) {
  const JobSecret secret =
      JobSecret::from_hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
  Nonce nonce;
  nonce.fill(0x42);
  const Proof256 proof = secret.prove("agent", "abc", nonce);
  const Proof256 expected = {0x1c, 0x48, 0x8d, 0xc9, 0xe2, 0xda, 0x36, 0x5e, 0xed, 0xdd, 0xf7,
                             0xab, 0x46, 0x57, 0xd9, 0xe6, 0xe9, 0xd0, 0x38, 0x31, 0x7b, 0xe5,
                             0x8f, 0xc3, 0xd6, 0x84, 0x73, 0x45, 0x13, 0x03, 0x0c, 0x52};
  EXPECT_TRUE(same_proof(proof, expected));
}

TEST(JobSecret, ProofDependsOnAllOfIt) {
  const JobSecret secret = JobSecret::random();
  const Nonce nonce = random_nonce();
  std::set<Proof256> proofs = {secret.prove("agent", "abc", nonce),
                               secret.prove("coordinator", "abc", nonce),
                               secret.prove("agent", "abd", nonce),
                               secret.prove("agent", "abc", random_nonce()),
                               JobSecret::random().prove("agent", "abc", nonce),
                               secret.prove("agenta", "bc", nonce)};
  EXPECT_EQ(proofs.size(), 6U);
}

}  // namespace
}  // namespace cartesian
