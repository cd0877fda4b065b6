#pragma once
// Internal to comm/exchange*.cc: a step over a hop, and reading and writing what goes with rows.

#include <cstring>
#include <span>
#include <string_view>

#include "base/check.h"
#include "base/index.h"
#include "comm/exchange.h"

namespace cartesian {

struct HopStep final : Transfer {
  HopStep(std::string_view step_name, HopTransfer messages)
      : name(step_name), hop(std::move(messages)) {}
  bool done() override { return hop.done(); }

  std::string_view name;
  HopTransfer hop;
  Rows rows;                           ///< the caller's, where this rank's own are read from it
  std::vector<const std::byte*> held;  ///< likewise
  std::vector<float> own_choices;      ///< scalars of this rank's own rails
  std::vector<float> own_shared_weights;
  DType dtype = DType::f32;
  std::int64_t hidden = 0;
};

/// The step that a finishing call was handed.
inline HopStep& step_of(TransferPtr& transfer, std::string_view name) {
  auto* step = dynamic_cast<HopStep*>(transfer.get());
  check(step != nullptr && step->name == name, "a step is finished by its own call");
  step->hop.wait();
  return *step;
}

/// Values one after the other in a message, which need not be aligned.
class Writer {
 public:
  explicit Writer(std::span<std::byte> to) : to_(to) {}
  template <class T>
  void put(const T& value) {
    check(at_ + sizeof(T) <= to_.size(), "a message has room for what it should carry");
    std::memcpy(to_.data() + at_, &value, sizeof(T));
    at_ += sizeof(T);
  }

 private:
  std::span<std::byte> to_;
  std::size_t at_ = 0;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> from) : from_(from) {}
  template <class T>
  T take() {
    check(at_ + sizeof(T) <= from_.size(), "a message holds what it should carry");
    T value;
    std::memcpy(&value, from_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  void skip(std::size_t bytes) { at_ += bytes; }

 private:
  std::span<const std::byte> from_;
  std::size_t at_ = 0;
};

inline std::size_t bytes_of_rows(DType dtype, std::int64_t hidden) {
  return as_index(hidden) * size_of(dtype);
}

}  // namespace cartesian
