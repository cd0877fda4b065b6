#include "runtime/train/routed_rows.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>

#include "base/index.h"
#include "comm/collectives.h"

namespace cartesian {

namespace {

void append_ids(const Tensor& ids, std::span<const std::size_t> rows,
                std::vector<std::int16_t>& to) {
  const std::size_t width = as_index(ids.cols());
  for (const std::size_t row : rows) {
    for (const std::int32_t id : ids.span<std::int32_t>().subspan(row * width, width)) {
      to.push_back(static_cast<std::int16_t>(id));  // a model has fewer experts than it counts
    }
  }
}

/// All ranks' values, one rank's after the other's; on rank 0.
template <class T>
std::vector<T> gather_values(Transport& transport, const std::vector<T>& mine, const char* what) {
  const std::string_view bytes(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(T));
  const std::vector<std::string> parts = gather(transport, 0, bytes, {what});
  std::vector<T> all;
  for (const std::string& part : parts) {
    const std::size_t before = all.size();
    all.resize(before + part.size() / sizeof(T));
    if (!part.empty()) {
      std::memcpy(all.data() + before, part.data(), part.size());
    }
  }
  return all;
}

/// [rows, width] in another order.
template <class T>
std::vector<T> ordered(const std::vector<T>& values, std::span<const std::size_t> order,
                       std::int64_t width) {
  std::vector<T> result;
  result.reserve(values.size());
  for (const std::size_t row : order) {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(row) * width;
    result.insert(result.end(), first, first + width);
  }
  return result;
}

}  // namespace

RoutedRows::RoutedRows(const ModelConfig& config, DType dtype, bool speculative)
    : config_(config), dtype_(dtype), speculative_(speculative) {}

void RoutedRows::add(const RoutedChunk& chunk, std::span<const std::size_t> rows,
                     std::span<const std::int64_t> numbers) {
  for (std::size_t group = 0; group < chunk.choices.size(); ++group) {
    const Choices& choices = chunk.choices[group];
    Rows& kept = rows_[{chunk.block, static_cast<int>(group)}];
    kept.numbers.insert(kept.numbers.end(), numbers.begin(), numbers.end());
    kept.values.choices = choices.experts.cols();
    append_ids(choices.experts, rows, kept.values.ids);
    const std::size_t width = as_index(kept.values.choices);
    for (const std::size_t row : rows) {
      const auto gates = choices.gates.span<float>().subspan(row * width, width);
      kept.values.gates.insert(kept.values.gates.end(), gates.begin(), gates.end());
    }
    if (speculative_ && group == 1 && !rows.empty()) {
      append_ids(chunk.speculative, rows, kept.values.speculative_ids);
    }
  }
}

RoutingTrace RoutedRows::take(Transport& transport, const char* what) {
  RoutingTrace trace{.tokens = 0,
                     .experts = config_.num_experts,
                     .hidden = config_.hidden_size,
                     .expert_width = config_.expert_width(),
                     .dtype = dtype_ == DType::bf16 ? "bfloat16" : "float32",
                     .model = {},
                     .sub_layers = {},
                     .home = {}};
  for (auto& [position, rows] : rows_) {
    const std::vector<std::int64_t> numbers = gather_values(transport, rows.numbers, what);
    std::vector<std::size_t> order(numbers.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, {}, [&](std::size_t row) { return numbers[row]; });
    RoutingTrace::SubLayer& values = rows.values;
    values.block = position.first;
    values.group = position.second;
    const auto collect = [&](auto& of_rank) {
      of_rank = ordered(gather_values(transport, of_rank, what), order, values.choices);
    };
    collect(values.ids);
    collect(values.gates);
    if (speculative_ && values.group == 1) {
      collect(values.speculative_ids);
    }
    trace.tokens = static_cast<std::int64_t>(numbers.size());
    trace.sub_layers.push_back(std::move(values));
  }
  rows_.clear();
  return transport.rank() == 0 ? std::move(trace) : RoutingTrace{};
}

}  // namespace cartesian
