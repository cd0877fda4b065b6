#include "tests/fuzz/mutator.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

namespace cartesian {

namespace {

/// Values at which arithmetic goes wrong.
constexpr std::array<std::uint64_t, 16> kExtremes = {
    0,   1,          2,          7,          8,          127,        128,        255,
    256, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1ULL << 32, 1ULL << 62, 1ULL << 63, ~0ULL,
};

}  // namespace

Mutator::Mutator(std::vector<std::string> seeds, std::vector<std::string> words)
    : seeds_(std::move(seeds)), words_(std::move(words)) {
  words_.insert(words_.end(), {"{", "}", "[", "]", ",", ":", "\"", "-1", "null", "1e999", "0.5"});
}

std::string Mutator::input(std::int64_t run) {
  random_.seed(static_cast<std::uint64_t>(run));
  std::string bytes = seeds_[below(seeds_.size())];
  const std::size_t mutations = 1 + below(4);
  for (std::size_t i = 0; i < mutations; ++i) {
    mutate(bytes);
  }
  return bytes;
}

std::size_t Mutator::below(std::size_t limit) {
  return static_cast<std::size_t>(random_() % limit);  // the bias does not matter here
}

std::string Mutator::number() {
  const std::uint64_t value = kExtremes.at(below(kExtremes.size())) + below(3) - 1;
  return below(4) == 0 ? fmt::format("-{}", value) : fmt::format("{}", value);
}

void Mutator::mutate(std::string& bytes) {
  if (bytes.empty()) {
    bytes = words_[below(words_.size())];
    return;
  }
  const std::size_t at = below(bytes.size());
  const std::size_t length = 1 + below(std::min<std::size_t>(bytes.size() - at, 32));
  switch (below(9)) {
    case 0:  // a bit
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
      break;
    case 1:  // a byte
      bytes[at] = static_cast<char>(below(256));
      break;
    case 2:  // the end is lost
      bytes.resize(at);
      break;
    case 3:  // a piece is lost
      bytes.erase(at, length);
      break;
    case 4:  // a piece comes twice
      bytes.insert(below(bytes.size()), bytes.substr(at, length));
      break;
    case 5: {  // an integer of two, four or eight bytes
      const std::uint64_t value = kExtremes.at(below(kExtremes.size())) + below(3) - 1;
      const std::size_t size = std::min(std::size_t{2} << below(3), bytes.size() - at);
      std::memcpy(bytes.data() + at, &value, size);
      break;
    }
    case 6:  // a word
      bytes.replace(at, below(2) * length, words_[below(words_.size())]);
      break;
    case 7: {  // a number in text, if there is one from here on
      const std::size_t begin = std::min(bytes.find_first_of("0123456789", at), bytes.size());
      const std::size_t end = std::min(bytes.find_first_not_of("0123456789", begin), bytes.size());
      bytes.replace(begin, end - begin, number());
      break;
    }
    default: {  // the rest of another input
      const std::string& other = seeds_[below(seeds_.size())];
      bytes = bytes.substr(0, at) + other.substr(below(other.size()));
      break;
    }
  }
}

std::int64_t fuzz_runs() {
  constexpr std::int64_t kDefault = 2000;
  const char* runs = std::getenv("CARTESIAN_FUZZ_RUNS");
  return runs == nullptr ? kDefault : std::max<std::int64_t>(1, std::atoll(runs));
}

std::string as_literal(const std::string& bytes) {
  std::string literal = "std::string(\"";
  for (const char c : bytes) {
    literal += fmt::format("\\{:03o}", static_cast<unsigned>(static_cast<unsigned char>(c)));
  }
  return literal + fmt::format("\", {})", bytes.size());
}

}  // namespace cartesian
