#include "base/routing_trace.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "base/error.h"
#include "base/safetensors.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

RoutingTrace small_trace() {
  RoutingTrace trace;
  trace.tokens = 3;
  trace.experts = 5;
  trace.hidden = 8;
  trace.expert_width = 4;
  trace.tokens_per_step = 4096;
  trace.dtype = "bfloat16";
  trace.model = "a model";
  for (const int block : {0, 2, 10}) {
    for (const int group : {0, 1}) {
      trace.sub_layers.push_back({.block = block,
                                  .group = group,
                                  .choices = 2,
                                  .ids = {0, 4, 3, -1, static_cast<std::int16_t>(group), 2},
                                  .gates = {0.75F, 0.25F, 1, 0, 0.5F, 0.5F},
                                  .speculative_ids = {}});
    }
    trace.sub_layers.back().speculative_ids = {1, 2, 3, 4, 0, -1};
  }
  return trace;
}

class RoutingTraceTest : public testing::Test {
 protected:
  RoutingTrace round_trip(const RoutingTrace& trace) {
    save_routing_trace(*files_, path_, trace);
    return load_routing_trace(*files_, path_);
  }
  /// Saves a trace and replaces one of its tensors.
  void save_with(const std::string& name, const std::string& dtype,
                 const std::vector<std::int64_t>& shape, const std::string& bytes) {
    save_routing_trace(*files_, path_, small_trace());
    const SafetensorsReader reader(*files_, path_);
    std::vector<std::pair<std::string, SafetensorsEntry>> entries;
    for (const auto& [key, entry] : reader.tensors()) {
      if (key != name) {
        entries.emplace_back(key, entry);
      }
    }
    if (!dtype.empty()) {
      entries.emplace_back(
          name,
          SafetensorsEntry{dtype, shape, std::as_bytes(std::span(bytes.data(), bytes.size()))});
    }
    const auto file = files_->create(other_);
    std::map<std::string, std::string> metadata = reader.metadata();
    metadata.insert(metadata_.begin(), metadata_.end());
    write_safetensors(*file, entries, metadata);
    file->close();
  }
  void expect_refused(const std::string& mention) {
    expect_error<FormatError>([&] { load_routing_trace(*files_, other_); },
                              {other_.string(), mention});
  }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_ = make_posix_file_system();
  Path path_ = directory_ / "trace.safetensors";
  Path other_ = directory_ / "other.safetensors";
  std::map<std::string, std::string> metadata_;  ///< of save_with(), beside the trace's
};

TEST_F(RoutingTraceTest, RoundTrip) {
  RoutingTrace trace = small_trace();
  trace.home = {0, 1, 1};
  const RoutingTrace read = round_trip(trace);
  EXPECT_EQ(read.tokens, 3);
  EXPECT_EQ(read.experts, 5);
  EXPECT_EQ(read.hidden, 8);
  EXPECT_EQ(read.expert_width, 4);
  EXPECT_EQ(read.tokens_per_step, 4096);
  EXPECT_EQ(read.dtype, "bfloat16");
  EXPECT_EQ(read.model, "a model");
  EXPECT_EQ(read.home, trace.home);
  EXPECT_FALSE(read.has_text());
  ASSERT_EQ(read.sub_layers.size(), trace.sub_layers.size());
  for (std::size_t i = 0; i < read.sub_layers.size(); ++i) {
    EXPECT_EQ(read.sub_layers[i].block, trace.sub_layers[i].block);  // 10 comes after 2
    EXPECT_EQ(read.sub_layers[i].group, trace.sub_layers[i].group);
    EXPECT_EQ(read.sub_layers[i].choices, 2);
    EXPECT_EQ(read.sub_layers[i].ids, trace.sub_layers[i].ids);
    EXPECT_EQ(read.sub_layers[i].gates, trace.sub_layers[i].gates);
    EXPECT_EQ(read.sub_layers[i].speculative_ids, trace.sub_layers[i].speculative_ids);
  }
  EXPECT_EQ(files_->list(directory_.path()), std::vector<std::string>{"trace.safetensors"});
}

TEST_F(RoutingTraceTest, RoundTripOfText) {
  RoutingTrace trace = small_trace();
  trace.token_ids = {7, 0, 6};
  trace.vocab_size = 8;
  trace.sequence_length = 3;
  const RoutingTrace read = round_trip(trace);
  EXPECT_TRUE(read.has_text());
  EXPECT_EQ(read.token_ids, trace.token_ids);
  EXPECT_EQ(read.vocab_size, 8);
  EXPECT_EQ(read.sequence_length, 3);
}

TEST_F(RoutingTraceTest, RefusesBadText) {
  const std::string ids("\7\0\0\0\0\0\0\0\6\0\0\0", 12);
  const auto save = [&](std::map<std::string, std::string> metadata, const std::string& dtype,
                        std::int64_t tokens) {
    metadata_ = std::move(metadata);
    save_with("token_ids", dtype, {tokens}, ids.substr(0, static_cast<std::size_t>(4 * tokens)));
  };
  save({{"vocab_size", "8"}, {"sequence_length", "1"}}, "I32", 3);
  EXPECT_EQ(load_routing_trace(*files_, other_).token_ids, (std::vector<std::int32_t>{7, 0, 6}));
  save({{"vocab_size", "8"}}, "I32", 3);
  expect_refused("'sequence_length' is missing");
  save({{"sequence_length", "1"}}, "I32", 3);
  expect_refused("'vocab_size' is missing");
  save({{"vocab_size", "0"}, {"sequence_length", "1"}}, "I32", 3);
  expect_refused("vocab_size");
  save({{"vocab_size", "8"}, {"sequence_length", "2"}}, "I32", 3);
  expect_refused("3 tokens do not fill sequences of 2");
  save({{"vocab_size", "8"}, {"sequence_length", "1"}}, "I32", 2);
  expect_refused("token_ids");
  save({{"vocab_size", "8"}, {"sequence_length", "1"}}, "F32", 3);
  expect_refused("not I32");
  save({{"vocab_size", "7"}, {"sequence_length", "1"}}, "I32", 3);
  expect_refused("holds 7 in a vocabulary of 7");
}

TEST_F(RoutingTraceTest, WithoutTokens) {
  RoutingTrace trace = small_trace();
  trace.tokens = 0;
  for (RoutingTrace::SubLayer& sub_layer : trace.sub_layers) {
    sub_layer.ids.clear();
    sub_layer.gates.clear();
    sub_layer.speculative_ids.clear();
  }
  EXPECT_EQ(round_trip(trace).tokens, 0);
}

TEST_F(RoutingTraceTest, RefusesWhatContradictsItself) {
  const std::string ids(12, '\0');
  save_with("layers.2.A.ids", "I16", {2, 3}, ids);  // 3 tokens elsewhere
  expect_refused("layers.2.A");
  save_with("layers.2.A.ids", "I16", {6}, ids);
  expect_refused("layers.2.A.ids");
  save_with("layers.2.A.ids", "F16", {3, 2}, ids);
  expect_refused("layers.2.A.ids");
  save_with("layers.2.A.ids", "I16", {3, 2}, std::string(11, '\0') + '\x7F');
  expect_refused("of 5");
  save_with("layers.2.A.ids", "I16", {3, 2}, std::string("\xFE\xFF", 2) + std::string(10, '\0'));
  expect_refused("-2 of 5");
  save_with("layers.2.B.gates", "", {}, "");
  expect_refused("layers.2.B.gates");
  save_with("layers.2.B.gates", "F32", {3, 2}, std::string(24, '\xFF'));
  expect_refused("not finite");
  const std::string twice("\0\0\0\0\1\0\2\0\1\0\2\0", 12);
  save_with("layers.2.A.ids", "I16", {3, 2}, twice);
  expect_refused("token 0");
  const std::string gap("\0\0\1\0\xFF\xFF\2\0\1\0\2\0", 12);
  save_with("layers.2.A.ids", "I16", {3, 2}, gap);
  expect_refused("token 1");
  save_with("home", "I32", {2}, std::string(8, '\0'));
  expect_refused("home");
  save_with("home", "I32", {3}, std::string(12, '\xFF'));
  expect_refused("negative");
}

TEST_F(RoutingTraceTest, RefusesWhatIsNoTrace) {
  for (const auto& [key, value] : {std::pair{"experts", "0"},
                                   {"experts", "x"},
                                   {"experts", "40000"},
                                   {"hidden", "-1"},
                                   {"tokens_per_step", "1e9"},
                                   {"dtype", "float16"},
                                   {"dtype", "bf16"},
                                   {"dtype", ""}}) {
    const auto file = files_->create(other_);
    std::map<std::string, std::string> metadata = {{"experts", "5"},      {"hidden", "8"},
                                                   {"expert_width", "4"}, {"tokens_per_step", "0"},
                                                   {"dtype", "float32"},  {"model", ""}};
    metadata[key] = value;
    write_safetensors(*file, {}, metadata);
    file->close();
    expect_refused(key);
  }
  const auto file = files_->create(other_);
  write_safetensors(*file, {}, {});
  file->close();
  expect_refused("missing");
}

}  // namespace
}  // namespace cartesian
