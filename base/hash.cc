#include "base/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <new>

namespace cartesian {

std::uint64_t hash_bytes(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::uint64_t hash_bytes(std::string_view text) {
  return hash_bytes(std::as_bytes(std::span(text)));
}

std::string hash_hex(std::uint64_t hash) { return fmt::format("{:016x}", hash); }

struct Hasher::State {
  State() : stream(XXH3_createState()) {
    if (stream == nullptr) {
      throw std::bad_alloc();
    }
    XXH3_64bits_reset(stream);
  }
  ~State() { XXH3_freeState(stream); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  XXH3_state_t* stream;
};

Hasher::Hasher() : state_(std::make_unique<State>()) {}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::update(std::span<const std::byte> bytes) {
  XXH3_64bits_update(state_->stream, bytes.data(), bytes.size());
}

std::uint64_t Hasher::digest() const { return XXH3_64bits_digest(state_->stream); }

}  // namespace cartesian
