// Checkpoints that were damaged, or made by someone else: refused with an error that names the
// file, or loaded when they are only plainer than ours.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/bfloat16.h"
#include "base/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/tiny_checkpoint.h"

namespace cartesian::test {
namespace {

constexpr std::uint64_t kSeed = 5;

ModelConfig small_model() {
  ModelConfig config = tiny_model();
  config.num_hidden_layers = 1;
  config.num_experts = 2;
  return config;
}

/// The weights as float32 tensors of a safetensors file. They point into `store`.
std::vector<std::pair<std::string, SafetensorsEntry>> entries_of(ParameterStore& store) {
  std::vector<std::pair<std::string, SafetensorsEntry>> entries;
  for (const NamedTensor& tensor : store.tensors()) {
    SafetensorsEntry entry{.dtype = "F32", .shape = {}, .bytes = {}};
    for (int i = 0; i < tensor.shape.rank(); ++i) {
      entry.shape.push_back(tensor.shape[i]);
    }
    entry.bytes = std::as_bytes(std::span(store.weights())
                                    .subspan(static_cast<std::size_t>(tensor.offset),
                                             static_cast<std::size_t>(tensor.shape.numel())));
    entries.emplace_back(tensor.name, entry);
  }
  return entries;
}

void write_tensors(FileSystem& files, const Path& path,
                   std::span<const std::pair<std::string, SafetensorsEntry>> entries) {
  const auto file = files.create(path);
  write_safetensors(*file, entries, {{"format", "pt"}});
  file->close();
}

class DamageTest : public testing::Test {
 protected:
  DamageTest()
      : files_(make_posix_file_system()),
        path_(save_tiny(*files_, directory_.path(), small_model(), 1, kSeed)) {}

  /// Everything that loading does.
  void load() const {
    CheckpointReader reader(*files_, path_);
    reader.verify();
    TinyStore tiny(small_model());
    reader.read_weights(tiny.store);
    reader.read_moments(tiny.store);
  }
  void write(const std::string& name, const std::string& contents) const {
    const auto file = files_->create(path_ / name);
    file->append(contents);
    file->close();
  }
  std::string read(const std::string& name) const { return files_->read(path_ / name); }

  /// Every one of `texts` in the place of `name` is refused by name, with or without checksums.
  void expect_refused(const std::string& name, const std::vector<std::string>& texts) const {
    files_->remove_all(path_ / kChecksumsFile);
    const std::string good = read(name);
    for (const std::string& text : texts) {
      SCOPED_TRACE(text.substr(0, 80));
      write(name, text);
      expect_error<FormatError>([&] { load(); }, {(path_ / name).string()});
    }
    write(name, good);
    EXPECT_NO_THROW(load());
  }

  TemporaryDirectory directory_;
  std::unique_ptr<FileSystem> files_;
  Path path_;
};

TEST_F(DamageTest, AnyAlteredByteIsFound) {
  EXPECT_NO_THROW(load());
  for (const std::string& name : files_->list(path_)) {
    if (name == kChecksumsFile) {
      continue;
    }
    const std::string good = read(name);
    for (const std::size_t at : {std::size_t{0}, good.size() / 2, good.size() - 1}) {
      SCOPED_TRACE(name + " byte " + std::to_string(at));
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ 1);
      write(name, bad);
      expect_error<FormatError>([&] { load(); }, {(path_ / name).string()});
    }
    write(name, good);
  }
  EXPECT_NO_THROW(load());
}

TEST_F(DamageTest, TruncatedFilesAreRefusedWithoutChecksumsToo) {
  files_->remove_all(path_ / kChecksumsFile);
  for (const std::string& name : files_->list(path_)) {
    const std::string good = read(name);
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{7}, good.size() / 2, good.size() - 3}) {
      SCOPED_TRACE(name + " cut to " + std::to_string(size));
      write(name, good.substr(0, size));
      expect_error<FormatError>([&] { load(); }, {(path_ / name).string()});
    }
    write(name, good);
  }
}

TEST_F(DamageTest, AMissingFileIsNamed) {
  const std::string shard = "model-00001-of-00001.safetensors";
  files_->remove_all(path_ / shard);
  expect_error<FileError>([&] { load(); }, {(path_ / shard).string()});
  files_->remove_all(path_ / kConfigFile);
  expect_error<FileError>([&] { load(); }, {path_.string(), "not a checkpoint", kConfigFile});
}

TEST_F(DamageTest, WithoutWeightsItIsNoCheckpoint) {
  files_->remove_all(path_ / kIndexFile);
  expect_error<FileError>([&] { load(); }, {path_.string(), "model.safetensors"});
}

TEST_F(DamageTest, HostileIndexFiles) {
  const auto mapping = [](const std::string& file) {
    return R"({"weight_map": {"lm_head.weight": )" + file + "}}";
  };
  expect_refused(
      kIndexFile,
      {"", "{", "[]", "7", "null", "{}", "\xff", R"({"weight_map": []})", R"({"weight_map": "x"})",
       mapping("3"), mapping("null"), mapping(R"("")"), mapping(R"("../model.safetensors")"),
       mapping(R"("/etc/passwd")"), mapping(R"("a/b")"), mapping(R"(".hidden")"),
       mapping(R"("..")"), R"({"weight_map": {}, "weight_map": {}})", std::string(100000, '[')});
}

TEST_F(DamageTest, ATensorThatIsNotThere) {
  files_->remove_all(path_ / kChecksumsFile);
  auto json = nlohmann::json::parse(read(kIndexFile));
  json["weight_map"].erase("lm_head.weight");
  write(kIndexFile, json.dump());
  expect_error<FormatError>([&] { load(); }, {path_.string(), "lm_head.weight", "missing"});
  json["weight_map"]["lm_head.weight"] = "optimizer-00001-of-00001.safetensors";
  write(kIndexFile, json.dump());
  expect_error<FormatError>([&] { load(); },
                            {"optimizer-00001-of-00001.safetensors", "lm_head.weight"});
}

TEST_F(DamageTest, TensorsThatTheModelHasNoPlaceFor) {
  files_->remove_all(path_ / kChecksumsFile);
  const std::string good = read(kIndexFile);
  const std::string shard = "model-00001-of-00001.safetensors";
  const auto with = [&](const std::string& name) {
    auto json = nlohmann::json::parse(good);
    json["weight_map"][name] = shard;
    write(kIndexFile, json.dump());
  };
  for (const char* name :
       {"model.layers.0.self_attn.q_proj.bias", "model.layers.1.input_layernorm.weight",
        "model.layers.0.mlp0.2.up_proj.weight", "model.layers.0.wg.weight",
        "model.router_tokens.weight", "transformer.wte.weight"}) {
    SCOPED_TRACE(name);
    with(name);
    expect_error<FormatError>([&] { load(); },
                              {(path_ / shard).string(), name, "not one of the model"});
  }
  with("model.layers.0.self_attn.rotary_emb.inv_freq");  // older tools keep this constant
  EXPECT_NO_THROW(load());
}

TEST_F(DamageTest, TensorsOfNumbersThatAreNotWeights) {
  for (const auto& [name, dtype] :
       {std::pair("model.norm.weight", "U16"), std::pair("model.layers.0.wg1.weight", "I32")}) {
    SCOPED_TRACE(name);
    const TemporaryDirectory directory;
    files_->write_atomically(directory / kConfigFile, read(kConfigFile));
    TinyStore tiny(small_model(), kSeed);
    std::vector<std::pair<std::string, SafetensorsEntry>> entries = entries_of(tiny.store);
    for (auto& [tensor, entry] : entries) {
      if (tensor == name) {
        entry.dtype = dtype;
        entry.bytes = entry.bytes.first(entry.bytes.size() / (entry.dtype == "U16" ? 2 : 1));
      }
    }
    write_tensors(*files_, directory / "model.safetensors", entries);
    CheckpointReader reader(*files_, directory.path());
    expect_error<FormatError>(
        [&] { reader.read_weights(tiny.store); },
        {(directory / "model.safetensors").string(), name, dtype, "F32, BF16 or F16"});
  }
}

TEST_F(DamageTest, HostileTrainerStates) {
  expect_refused(
      kTrainerFile,
      {"", "{}", "[]", R"({"version": 1, "step": 1, "sequences": 8})",
       R"({"version": 2, "step": 1, "sequences": 8, "seed": 1, "sequence_length": 8, "windows": 9})",
       R"({"version": 1, "step": -1, "sequences": 8, "seed": 1, "sequence_length": 8, "windows": 9})",
       R"({"version": 1, "step": 1.5, "sequences": 8, "seed": 1, "sequence_length": 8, "windows": 9})",
       R"({"version": 1, "step": "1", "sequences": 8, "seed": 1, "sequence_length": 8, "windows": 9})",
       R"({"version": 1, "step": null, "sequences": 8, "seed": 1, "sequence_length": 8, "windows": 9})",
       R"({"version": 1, "step": 18446744073709551615, "sequences": 8, "seed": 1, "sequence_length": 8, "windows": 9})",
       R"({"version": 1, "step": 1e99, "sequences": 8, "seed": 1, "sequence_length": 8, "windows": 9})",
       R"({"version": 1, "step": 1, "sequences": 8, "seed": 1, "sequence_length": 8, "windows": 9, "order": 3})",
       R"({"version": 1, "step": 1, "sequences": 8, "seed": 1, "sequence_length": 8, "windows": 9, "extra": 2})"});
}

TEST_F(DamageTest, HostileChecksums) {
  expect_error<FileError>(
      [&] {
        write(kChecksumsFile, R"({"files": {"gone.safetensors": "0123456789abcdef"}})");
        load();
      },
      {"gone.safetensors"});
  for (const char* text : {"", "[]", "{}", R"({"files": []})", R"({"files": 3})"}) {
    write(kChecksumsFile, text);
    expect_error<FormatError>([&] { load(); }, {(path_ / kChecksumsFile).string()});
  }
  for (const char* text : {R"({"files": {"config.json": 3}})", R"({"files": {"config.json": ""}})",
                           R"({"files": {"config.json": null}})"}) {
    write(kChecksumsFile, text);
    expect_error<FormatError>([&] { load(); }, {(path_ / kConfigFile).string()});
  }
}

TEST_F(DamageTest, AnotherModelsTensors) {
  CheckpointReader reader(*files_, path_);
  ModelConfig wider = small_model();
  wider.vocab_size = 14;
  TinyStore tiny(wider);
  expect_error<FormatError>([&] { reader.read_weights(tiny.store); },
                            {"model.embed_tokens.weight", "[13, 8]", "[14, 8]"});
  expect_error<ConfigError>([&] { check_same_model(reader.model(), wider, path_.string()); },
                            {path_.string(), "vocab_size = 13 there, 14"});
  ModelConfig longer = small_model();
  longer.max_position_embeddings = 4096;
  EXPECT_NO_THROW(check_same_model(reader.model(), longer, path_.string()));
}

TEST_F(DamageTest, NothingToResumeFromWithoutOptimizerFiles) {
  files_->remove_all(path_ / kOptimizerIndexFile);
  expect_error<FileError>([&] { load(); }, {path_.string(), kOptimizerIndexFile});
}

// As the authors publish theirs: one file of bfloat16, LLaMA's config.json, nothing beside.
TEST(ForeignCheckpointTest, AHuggingFaceDirectoryLoads) {
  const auto files = make_posix_file_system();
  const TemporaryDirectory directory;
  TinyStore tiny(small_model(), kSeed);
  std::map<std::string, std::vector<bfloat16>> rounded;
  auto entries = entries_of(tiny.store);
  const auto weights = by_name(tiny.store, tiny.store.weights());
  for (auto& [name, entry] : entries) {
    std::vector<bfloat16>& values = rounded[name];
    for (const double value : weights.at(name)) {
      values.push_back(to_bfloat16(static_cast<float>(value)));
    }
    entry.dtype = "BF16";
    entry.bytes = std::as_bytes(std::span(values));
  }
  write_tensors(*files, directory / "model.safetensors", entries);
  files->write_atomically(directory / "config.json", R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "bos_token_id": 1,
    "vocab_size": 13, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 6,
    "rms_norm_eps": 1e-06, "rope_scaling": null, "hidden_act": "silu",
    "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_moe": true,
    "num_experts": 2, "moe_top_k": 2, "c2_fine_grain": true, "grain_level": 2,
    "use_residual": true, "initial_moe_layer": -1, "interleave_moe_layer": true,
    "expert_interval": 2})");

  CheckpointReader reader(*files, directory.path());
  EXPECT_EQ(reader.model(), small_model());
  EXPECT_FALSE(reader.trainer_state().has_value());
  EXPECT_NO_THROW(reader.verify());
  TinyStore loaded(small_model());
  reader.read_weights(loaded.store);
  for (const auto& [name, values] : by_name(loaded.store, loaded.store.weights())) {
    const std::vector<bfloat16>& expected = rounded.at(name);
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(values[i], to_float(expected[i])) << name;
    }
  }
}

}  // namespace
}  // namespace cartesian::test
