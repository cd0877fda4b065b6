#include "base/routing_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <string_view>
#include <type_traits>

#include "base/check.h"
#include "base/error.h"
#include "base/json.h"
#include "base/safetensors.h"

namespace cartesian {

namespace {

constexpr std::int64_t kMostExperts = std::numeric_limits<std::int16_t>::max();

std::string prefix_of(int block, int group) {
  return fmt::format("layers.{}.{}.", block, group == 0 ? 'A' : 'B');
}

template <class T>
constexpr const char* name_of_type() {
  return std::is_same_v<T, float> ? "F32" : std::is_same_v<T, std::int16_t> ? "I16" : "I32";
}

using Entry = std::pair<std::string, SafetensorsEntry>;

template <class T>
Entry entry_of(std::string name, const std::vector<T>& values,
               const std::vector<std::int64_t>& shape) {
  return {std::move(name),
          {.dtype = name_of_type<T>(), .shape = shape, .bytes = std::as_bytes(std::span(values))}};
}

/// Which sub-layer, if any, a tensor named layers.L.g.ids belongs to.
std::optional<std::pair<int, int>> sub_layer_of(std::string_view name) {
  constexpr std::string_view kStart = "layers.";
  if (!name.starts_with(kStart)) {
    return std::nullopt;
  }
  int block = 0;
  const char* begin = name.data() + kStart.size();
  const auto [end, error] = std::from_chars(begin, name.data() + name.size(), block);
  const std::string_view rest(end, static_cast<std::size_t>(name.data() + name.size() - end));
  if (error != std::errc() || block < 0 || (rest != ".A.ids" && rest != ".B.ids")) {
    return std::nullopt;
  }
  return std::pair(block, rest == ".A.ids" ? 0 : 1);
}

class Reader {
 public:
  Reader(FileSystem& files, const Path& path) : file_(files, path) {}

  RoutingTrace read() {
    RoutingTrace trace;
    trace.experts = integer("experts", 1, kMostExperts);
    trace.hidden = integer("hidden", 1, std::numeric_limits<std::int32_t>::max());
    trace.expert_width = integer("expert_width", 1, std::numeric_limits<std::int32_t>::max());
    trace.tokens_per_step = integer("tokens_per_step", 0, std::int64_t{1} << 53);
    trace.dtype = text("dtype");
    if (trace.dtype != "float32" && trace.dtype != "bfloat16") {
      fail(fmt::format("metadata 'dtype' is {}, neither float32 nor bfloat16", quote(trace.dtype)));
    }
    trace.model = text("model");
    std::map<std::pair<int, int>, bool> found;  // ordered by block, then group
    for (const auto& [name, entry] : file_.tensors()) {
      if (const auto sub_layer = sub_layer_of(name)) {
        found[*sub_layer] = true;
      }
    }
    if (found.empty()) {
      fail("holds no layers.L.A.ids");
    }
    for (const auto& [sub_layer, present] : found) {
      trace.sub_layers.push_back(read_sub_layer(sub_layer.first, sub_layer.second, trace));
    }
    if (file_.tensors().contains("home")) {
      const auto shape = file_.at("home").shape;
      trace.home = values<std::int32_t>("home", {trace.tokens});
      if (std::ranges::any_of(trace.home, [](std::int32_t rank) { return rank < 0; })) {
        fail("tensor \"home\" holds a negative rank");
      }
    }
    if (file_.tensors().contains("token_ids")) {
      read_text(trace);
    }
    return trace;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw FormatError(fmt::format("{}: {}", file_.path().string(), what));
  }

  std::string text(const std::string& key) const {
    const auto found = file_.metadata().find(key);
    if (found == file_.metadata().end()) {
      fail(fmt::format("metadata '{}' is missing", key));
    }
    return found->second;
  }

  std::int64_t integer(const std::string& key, std::int64_t least, std::int64_t most) const {
    const std::string value = text(key);
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || number < least ||
        number > most) {
      fail(fmt::format("metadata '{}' is {}, not an integer within [{}, {}]", key, quote(value),
                       least, most));
    }
    return number;
  }

  template <class T>
  std::vector<T> values(const std::string& name, const std::vector<std::int64_t>& shape) const {
    const SafetensorsEntry& entry = file_.at(name);
    if (entry.dtype != name_of_type<T>() || entry.shape != shape) {
      fail(fmt::format("tensor {} is not {} of the shape that the others have", quote(name),
                       name_of_type<T>()));
    }
    std::vector<T> result(entry.bytes.size() / sizeof(T));
    if (!result.empty()) {
      std::memcpy(result.data(), entry.bytes.data(), entry.bytes.size());
    }
    return result;
  }

  void read_text(RoutingTrace& trace) const {
    constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
    trace.vocab_size = integer("vocab_size", 1, kMost);
    trace.sequence_length = integer("sequence_length", 1, kMost);
    if (trace.tokens % trace.sequence_length != 0) {
      fail(fmt::format("{} tokens do not fill sequences of {}", trace.tokens,
                       trace.sequence_length));
    }
    trace.token_ids = values<std::int32_t>("token_ids", {trace.tokens});
    const auto bad = std::ranges::find_if(
        trace.token_ids, [&](std::int32_t id) { return id < 0 || id >= trace.vocab_size; });
    if (bad != trace.token_ids.end()) {
      fail(fmt::format("tensor \"token_ids\" holds {} in a vocabulary of {}", *bad,
                       trace.vocab_size));
    }
  }

  RoutingTrace::SubLayer read_sub_layer(int block, int group, RoutingTrace& trace) const {
    const std::string prefix = prefix_of(block, group);
    const SafetensorsEntry& ids = file_.at(prefix + "ids");
    if (ids.shape.size() != 2 || ids.shape[1] < 1 || ids.shape[1] > trace.experts) {
      fail(fmt::format("tensor {} is not [tokens, choices] with 1 to {} choices",
                       quote(prefix + "ids"), trace.experts));
    }
    if (trace.sub_layers.empty()) {
      trace.tokens = ids.shape[0];
    }
    RoutingTrace::SubLayer result{.block = block,
                                  .group = group,
                                  .choices = ids.shape[1],
                                  .ids = {},
                                  .gates = {},
                                  .speculative_ids = {}};
    const std::vector<std::int64_t> shape = {trace.tokens, result.choices};
    result.ids = checked_ids(prefix + "ids", shape, trace.experts);
    result.gates = values<float>(prefix + "gates", shape);
    if (!std::ranges::all_of(result.gates, [](float g) { return std::isfinite(g) && g >= 0; })) {
      fail(fmt::format("tensor {} holds a gate that is negative or not finite",
                       quote(prefix + "gates")));
    }
    check_choices(prefix, result);
    if (group == 1 && file_.tensors().contains(prefix + "speculative_ids")) {
      result.speculative_ids = checked_ids(prefix + "speculative_ids", shape, trace.experts);
    }
    return result;
  }

  /// A token's choices come first, then nothing; no expert twice; what is not chosen has no gate.
  void check_choices(const std::string& prefix, const RoutingTrace::SubLayer& sub_layer) const {
    const auto k = static_cast<std::size_t>(sub_layer.choices);
    for (std::size_t begin = 0; begin < sub_layer.ids.size(); begin += k) {
      for (std::size_t j = begin; j < begin + k; ++j) {
        const std::int16_t id = sub_layer.ids[j];
        const auto earlier = std::span(sub_layer.ids).subspan(begin, j - begin);
        const bool twice = id >= 0 && std::ranges::find(earlier, id) != earlier.end();
        const bool gap = id >= 0 && !earlier.empty() && earlier.back() < 0;
        if (twice || gap || (id < 0 && sub_layer.gates[j] != 0)) {
          fail(fmt::format("tensors {} and gates: the choices of token {} contradict each other",
                           quote(prefix + "ids"), begin / k));
        }
      }
    }
  }

  std::vector<std::int16_t> checked_ids(const std::string& name,
                                        const std::vector<std::int64_t>& shape,
                                        std::int64_t experts) const {
    auto ids = values<std::int16_t>(name, shape);
    const auto bad =
        std::ranges::find_if(ids, [&](std::int16_t e) { return e < -1 || e >= experts; });
    if (bad != ids.end()) {
      fail(fmt::format("tensor {} chooses expert {} of {}", quote(name), *bad, experts));
    }
    return ids;
  }

  SafetensorsReader file_;
};

}  // namespace

void save_routing_trace(FileSystem& files, const Path& path, const RoutingTrace& trace) {
  std::vector<Entry> entries;
  for (const RoutingTrace::SubLayer& sub_layer : trace.sub_layers) {
    const std::string prefix = prefix_of(sub_layer.block, sub_layer.group);
    const std::vector<std::int64_t> shape = {trace.tokens, sub_layer.choices};
    entries.push_back(entry_of(prefix + "ids", sub_layer.ids, shape));
    entries.push_back(entry_of(prefix + "gates", sub_layer.gates, shape));
    if (!sub_layer.speculative_ids.empty()) {
      entries.push_back(entry_of(prefix + "speculative_ids", sub_layer.speculative_ids, shape));
    }
  }
  if (!trace.home.empty()) {
    entries.push_back(entry_of("home", trace.home, {trace.tokens}));
  }
  std::map<std::string, std::string> metadata = {
      {"experts", std::to_string(trace.experts)},
      {"hidden", std::to_string(trace.hidden)},
      {"expert_width", std::to_string(trace.expert_width)},
      {"tokens_per_step", std::to_string(trace.tokens_per_step)},
      {"dtype", trace.dtype},
      {"model", trace.model}};
  if (trace.has_text()) {
    entries.push_back(entry_of("token_ids", trace.token_ids, {trace.tokens}));
    metadata["vocab_size"] = std::to_string(trace.vocab_size);
    metadata["sequence_length"] = std::to_string(trace.sequence_length);
  }
  Path temporary = path;
  temporary += ".tmp";
  const auto file = files.create(temporary);
  write_safetensors(*file, entries, metadata);
  file->sync();
  file->close();
  files.rename(temporary, path);
  files.sync_directory(path.parent_path());
}

RoutingTrace load_routing_trace(FileSystem& files, const Path& path) {
  return Reader(files, path).read();
}

}  // namespace cartesian
