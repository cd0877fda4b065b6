#include "runtime/train/routing_sample.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/index.h"
#include "base/random.h"
#include "comm/collectives.h"

namespace cartesian {

namespace {

template <class T>
void append_bytes(const std::vector<T>& values, std::string& bytes) {
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

/// Takes `count` values off the front of `bytes`.
template <class T>
void take_values(std::string_view& bytes, std::size_t count, std::vector<T>& values) {
  const std::size_t before = values.size();
  values.resize(before + count);
  if (count > 0) {
    std::memcpy(values.data() + before, bytes.data(), count * sizeof(T));
  }
  bytes.remove_prefix(count * sizeof(T));
}

}  // namespace

RoutingSample::RoutingSample(const ModelConfig& config, DType dtype, std::uint64_t seed,
                             std::int64_t every)
    : config_(config),
      dtype_(dtype),
      key_(random_key(seed, "routing sample")),
      every_(static_cast<std::uint64_t>(every)) {}

void RoutingSample::route(const RoutedChunk& chunk, std::int64_t first_token) {
  for (std::size_t row = 0; row < chunk.tokens.size(); ++row) {
    const std::int64_t number = first_token + chunk.tokens[row].token;
    if (random_bits(key_, static_cast<std::uint64_t>(number)) % every_ != 0) {
      continue;
    }
    for (std::size_t group = 0; group < chunk.choices.size(); ++group) {
      const Choices& choices = chunk.choices[group];
      Rows& rows = sub_layers_[{chunk.block, static_cast<std::int64_t>(group)}];
      rows.choices = choices.experts.cols();
      rows.tokens.push_back(number);
      const std::size_t width = as_index(rows.choices);
      for (const std::int32_t id :
           choices.experts.span<std::int32_t>().subspan(row * width, width)) {
        rows.ids.push_back(static_cast<std::int16_t>(id));  // a model has fewer than those
      }
      const auto gates = choices.gates.span<float>().subspan(row * width, width);
      rows.gates.insert(rows.gates.end(), gates.begin(), gates.end());
    }
  }
}

std::string RoutingSample::to_bytes(const SubLayers& sub_layers) {
  std::string bytes;
  for (const auto& [position, rows] : sub_layers) {
    append_bytes(std::vector<std::int64_t>{position.first, position.second, rows.choices,
                                           static_cast<std::int64_t>(rows.tokens.size())},
                 bytes);
    append_bytes(rows.tokens, bytes);
    append_bytes(rows.ids, bytes);
    append_bytes(rows.gates, bytes);
  }
  return bytes;
}

void RoutingSample::append(std::string_view bytes, SubLayers& sub_layers) {
  while (!bytes.empty()) {
    std::vector<std::int64_t> header;
    take_values(bytes, 4, header);
    Rows& rows = sub_layers[{header[0], header[1]}];
    rows.choices = header[2];
    const std::size_t tokens = as_index(header[3]);
    take_values(bytes, tokens, rows.tokens);
    take_values(bytes, tokens * as_index(rows.choices), rows.ids);
    take_values(bytes, tokens * as_index(rows.choices), rows.gates);
  }
}

RoutingTrace RoutingSample::take(Transport& transport) {
  const std::vector<std::string> parts =
      gather(transport, 0, to_bytes(std::exchange(sub_layers_, {})), {"routing sample"});
  SubLayers all;
  for (const std::string& part : parts) {
    append(part, all);
  }
  return all.empty() ? RoutingTrace{} : to_trace(all);
}

RoutingTrace RoutingSample::to_trace(const SubLayers& sub_layers) const {
  RoutingTrace trace{.tokens = static_cast<std::int64_t>(sub_layers.begin()->second.tokens.size()),
                     .experts = config_.num_experts,
                     .hidden = config_.hidden_size,
                     .expert_width = config_.expert_width(),
                     .dtype = dtype_ == DType::bf16 ? "bfloat16" : "float32",
                     .model = {},
                     .sub_layers = {},
                     .home = {}};
  for (const auto& [position, rows] : sub_layers) {
    std::vector<std::size_t> order(rows.tokens.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
      order[i] = i;
    }
    std::ranges::sort(order, {}, [&](std::size_t i) { return rows.tokens[i]; });
    RoutingTrace::SubLayer& sub_layer = trace.sub_layers.emplace_back();
    sub_layer.block = static_cast<int>(position.first);
    sub_layer.group = static_cast<int>(position.second);
    sub_layer.choices = rows.choices;
    const auto width = static_cast<std::ptrdiff_t>(rows.choices);
    for (const std::size_t i : order) {
      const auto at = static_cast<std::ptrdiff_t>(i) * width;
      sub_layer.ids.insert(sub_layer.ids.end(), rows.ids.begin() + at,
                           rows.ids.begin() + at + width);
      sub_layer.gates.insert(sub_layer.gates.end(), rows.gates.begin() + at,
                             rows.gates.begin() + at + width);
    }
  }
  return trace;
}

}  // namespace cartesian
