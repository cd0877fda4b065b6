#include "runtime/train/trace_recorder.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string>

#include "base/check.h"
#include "comm/collectives.h"

namespace cartesian {

namespace {

void append_ids(const Tensor& ids, std::vector<std::int16_t>& to) {
  for (const std::int32_t id : ids.span<std::int32_t>()) {
    to.push_back(static_cast<std::int16_t>(id));  // a model has fewer experts than an int16 counts
  }
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

template <class T>
std::vector<T> values_of(const std::string& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) {
    std::memcpy(values.data(), bytes.data(), bytes.size());
  }
  return values;
}

/// What the ranks hold of one array [tokens of the rank, width], put in the order of token numbers.
template <class T>
std::vector<T> gather_rows(Transport& transport,
                           const std::vector<std::vector<std::int64_t>>& tokens,
                           const std::vector<T>& mine, std::int64_t width, std::int64_t total) {
  const std::vector<std::string> parts = gather(transport, 0, bytes_of(mine), {"routing trace"});
  std::vector<T> all(parts.empty() ? 0 : static_cast<std::size_t>(total * width));
  for (std::size_t rank = 0; rank < parts.size(); ++rank) {
    const std::vector<T> values = values_of<T>(parts[rank]);
    for (std::size_t i = 0; i < tokens[rank].size(); ++i) {
      std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(i) * width, width,
                  all.begin() + tokens[rank][i] * width);
    }
  }
  return all;
}

}  // namespace

TraceRecorder::TraceRecorder(ModelRank& rank, std::int64_t tokens) : rank_(rank), tokens_(tokens) {
  rank_.context().speculate = true;
  rank_.context().on_route = [this](const RoutedChunk& chunk) { record(chunk); };
}

TraceRecorder::~TraceRecorder() {
  rank_.context().speculate = false;
  rank_.context().on_route = {};
}

void TraceRecorder::record(const RoutedChunk& chunk) {
  for (std::size_t group = 0; group < chunk.choices.size(); ++group) {
    const Choices& choices = chunk.choices[group];
    Rows& rows = rows_[{chunk.block, static_cast<int>(group)}];
    for (const SourceToken& token : chunk.tokens) {
      rows.tokens.push_back(token.token);
    }
    rows.values.block = chunk.block;
    rows.values.group = static_cast<int>(group);
    rows.values.choices = choices.experts.cols();
    append_ids(choices.experts, rows.values.ids);
    const auto gates = choices.gates.span<float>();
    rows.values.gates.insert(rows.values.gates.end(), gates.begin(), gates.end());
    if (group == 1 && chunk.speculative.defined()) {
      append_ids(chunk.speculative, rows.values.speculative_ids);
    }
  }
}

RoutingTrace TraceRecorder::gather() {
  const ModelConfig& model = rank_.model().config();
  RoutingTrace trace{.tokens = tokens_,
                     .experts = model.num_experts,
                     .hidden = model.hidden_size,
                     .expert_width = model.expert_width(),
                     .dtype = rank_.context().dtype == DType::bf16 ? "bfloat16" : "float32",
                     .model = {},
                     .sub_layers = {},
                     .home = {}};
  Transport& transport = rank_.transport();
  for (auto& [position, rows] :
       rows_) {  // every rank has the same sub-layers, perhaps without rows
    std::vector<std::vector<std::int64_t>> tokens;
    for (const std::string& part :
         cartesian::gather(transport, 0, bytes_of(rows.tokens), {"routing trace"})) {
      tokens.push_back(values_of<std::int64_t>(part));
    }
    RoutingTrace::SubLayer& mine = rows.values;
    const auto collect = [&](auto& values) {
      values = gather_rows(transport, tokens, values, mine.choices, tokens_);
    };
    collect(mine.ids);
    collect(mine.gates);
    if (position.second == 1) {
      collect(mine.speculative_ids);
    }
    trace.sub_layers.push_back(std::move(mine));
  }
  return transport.rank() == 0 ? trace : RoutingTrace{};
}

}  // namespace cartesian
