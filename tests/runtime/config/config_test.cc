// Configurations: what is read, what is refused, and in which words.

#include "runtime/config/config.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/temporary_directory.h"

namespace cartesian {
namespace {

const std::string kMinimal = "[data]\ntrain = \"tokens\"\n";

Config parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_config(text, "run.toml", overrides);
}

void expect_refused(const std::string& text, std::initializer_list<std::string> mentions) {
  SCOPED_TRACE(text);
  expect_error<ConfigError>([&] { parse(text); }, mentions);
}

/// Refused whether the file or --set says so.
void expect_value_refused(const std::string& key, const std::string& value,
                          const std::string& reason) {
  SCOPED_TRACE(key + " = " + value);
  const auto dot = key.find('.');
  const std::string section = key.substr(0, dot);
  const std::string text = (section == "data" ? "" : kMinimal) + "[" + section + "]\n" +
                           key.substr(dot + 1) + " = " + value + "\n";
  expect_error<ConfigError>([&] { parse(text); }, {"run.toml:", key, reason});
  expect_error<ConfigError>([&] { parse(kMinimal, {key + "=" + value}); }, {"--set", key, reason});
}

TEST(ConfigTest, ReadsEverySectionAndKeepsDefaults) {
  const Config config = parse(R"(
    [model]
    hidden_size = 64
    sub_layers = 1
    use_residual = false
    rope_theta = 5e5
    [data]
    train = "a"
    valid = "b"
    [train]
    steps = 7
    sequence_length = 32
    learning_rate = 1
    [checkpoint]
    async = false
    [parallel]
    node_sizes = [1, 3]
    [exchange]
    chunks = 3
  )");
  EXPECT_EQ(config.model.hidden_size, 64);
  EXPECT_EQ(config.model.sub_layers, 1);
  EXPECT_FALSE(config.model.use_residual);
  EXPECT_EQ(config.model.rope_theta, 5e5);
  EXPECT_EQ(config.model.max_position_embeddings, 32);  // follows train.sequence_length
  EXPECT_EQ(config.data.train, "a");
  EXPECT_EQ(config.data.valid, "b");
  EXPECT_EQ(config.train.steps, 7);
  EXPECT_EQ(config.train.learning_rate, 1.0);  // an integer is a number
  EXPECT_FALSE(config.checkpoint.async);
  EXPECT_EQ(config.parallel.node_sizes, (std::vector<std::int64_t>{1, 3}));
  EXPECT_EQ(config.exchange.chunks, 3);
  EXPECT_EQ(config.train.batch_sequences, Config().train.batch_sequences);
  EXPECT_EQ(config.comm.timeout_s, Config().comm.timeout_s);
}

TEST(ConfigTest, UnknownKeysSuggestTheNearest) {
  expect_refused(
      kMinimal + "[train]\nlerning_rate = 1.0\n",
      {"run.toml:4: train.lerning_rate", "unknown key", "did you mean 'train.learning_rate'?"});
  expect_refused(kMinimal + "[trian]\nsteps = 1\n", {"trian.steps", "did you mean 'train.steps'?"});
  expect_refused(kMinimal + "[zzz]\nqqqqqqq = 1\n", {"zzz.qqqqqqq", "unknown key"});
  expect_refused("steps = 1\n" + kMinimal, {"run.toml:1: steps", "unknown key"});
  expect_refused(kMinimal + "[train.steps]\nx = 1\n", {"train.steps", "integer"});
  expect_error<ConfigError>([] { parse(kMinimal, {"train.stps=3"}); },
                            {"--set train.stps", "did you mean 'train.steps'?"});
}

TEST(ConfigTest, IllTypedValuesNameFileAndLine) {
  expect_refused(kMinimal + "\n[train]\nsteps = \"many\"\n",
                 {"run.toml:5: train.steps: must be an integer"});
  expect_value_refused("train.steps", "1.5", "must be an integer");
  expect_value_refused("train.steps", "true", "must be an integer");
  expect_value_refused("train.learning_rate", "\"fast\"", "must be a number");
  expect_value_refused("train.learning_rate", "true", "must be a number");
  expect_value_refused("model.use_residual", "1", "must be true or false");
  expect_value_refused("data.train", "3", "must be a string");
  expect_value_refused("parallel.node_sizes", "4", "must be a list of integers");
  expect_value_refused("parallel.node_sizes", "[1, 2.5]", "must be an integer");
  expect_value_refused("train.dtype", "\"float16\"", "must be one of float32, bfloat16");
  expect_value_refused("exchange.flow", "\"round\"", "must be one of auto, flat, home, pivot");
}

TEST(ConfigTest, Ranges) {
  expect_value_refused("train.batch_sequences", "0", "must be at least 1");
  expect_value_refused("train.micro_batch_sequences", "-4", "must be at least 1");
  expect_value_refused("train.sequence_length", "0", "must be at least 1");
  expect_value_refused("train.steps", "-1", "must be at least 0");
  expect_value_refused("train.learning_rate", "-0.1", "must be at least 0");
  expect_value_refused("train.learning_rate", "nan", "must be at least 0");
  expect_value_refused("train.learning_rate", "inf", "must be at least 0");
  expect_value_refused("parallel.node_sizes", "[2, 0]", "must be at least 1");
  expect_value_refused("exchange.chunks", "-1", "must be at least 0");
  expect_value_refused("comm.timeout_s", "0", "must be at least 0.001");
  expect_value_refused("checkpoint.keep_last", "0", "must be at least 1");
  expect_value_refused("model.num_experts", "0", "must be at least 1");
}

TEST(ConfigTest, WhatAdamWCannotUseInFloat32) {
  expect_refused(kMinimal + "[train]\neps = 0\n", {"train.eps = 0"});
  expect_refused(kMinimal + "[train]\neps = 1e-50\n", {"train.eps = 1e-50"});
  expect_refused(kMinimal + "[train]\nbeta2 = 0.99999999\n", {"train.beta2", "float32"});
}

TEST(ConfigTest, BalancingBySubLayer) {
  const Config config = parse(kMinimal, {"train.balance_loss=[0.02, 0]", "train.z_loss=1e-3"});
  EXPECT_EQ(config.train.balance_loss.of(0), 0.02);
  EXPECT_EQ(config.train.balance_loss.of(1), 0);
  EXPECT_EQ(config.train.z_loss.of(0), 1e-3);
  EXPECT_EQ(config.train.z_loss.of(1), 1e-3);
  EXPECT_FALSE(config.model.router_bias);
  EXPECT_TRUE(parse(kMinimal, {"train.balance_bias=[0, 1e-3]"}).model.router_bias);
  const Config frozen = parse(kMinimal, {"model.router_bias=true"});
  EXPECT_TRUE(frozen.model.router_bias);
  EXPECT_EQ(to_toml(parse(to_toml(config))), to_toml(config));
}

TEST(ConfigTest, ImpossibleBalancing) {
  expect_value_refused("train.balance_loss", "\"much\"", "must be a number, or a list");
  expect_value_refused("train.balance_loss", "[]", "must be a number, or a list");
  expect_value_refused("train.z_loss", "[1, 2, 3]", "must be a number, or a list");
  expect_value_refused("train.z_loss", "[1, true]", "must be a number");
  expect_value_refused("train.balance_bias", "[0.1, -0.1]", "must be at least 0");
  expect_value_refused("train.router_jitter", "nan", "must be at least 0");
  expect_refused(kMinimal + "[train]\nrouter_jitter = 1\n", {"train.router_jitter", "below 1"});
  const auto refused = [](const std::string& model, const std::string& train,
                          std::initializer_list<std::string> mentions) {
    expect_refused(kMinimal + "[model]\n" + model + "\n[train]\n" + train + "\n", mentions);
  };
  refused("sub_layers = 1", "balance_loss = [0.1, 0.2]",
          {"train.balance_loss has 2 values", "model.sub_layers = 1"});
  for (const std::string key : {"z_loss", "balance_bias", "router_jitter"}) {
    refused("sub_layers = 0", key + " = 0.1", {"train." + key, "model.sub_layers = 0"});
    refused("routing = \"hash\"", key + " = 0.1", {"train." + key, "hash"});
  }
  refused("routing = \"top_p\"", "balance_bias = 0.1", {"train.balance_bias", "top_p"});
  refused("routing = \"top_p\"\nrouter_bias = true", "", {"model.router_bias", "top_p"});
}

TEST(ConfigTest, ImpossibleSizes) {
  const auto model = [](const std::string& keys) { return kMinimal + "[model]\n" + keys; };
  expect_refused(model("hidden_size = 10\nnum_attention_heads = 4\n"),
                 {"model.hidden_size = 10 is not a multiple of model.num_attention_heads = 4"});
  expect_refused(model("hidden_size = 12\nnum_attention_heads = 4\n"),
                 {"model.hidden_size / num_attention_heads = 3 must be even"});
  expect_refused(model("moe_top_k = 17\n"),
                 {"model.moe_top_k = 17 is larger than model.num_experts = 16"});
  expect_refused(model("sub_layers = 3\n"), {"model.sub_layers = 3", "0 (dense)"});
  expect_refused(model("intermediate_size = 9\n"),
                 {"model.intermediate_size = 9 is not a multiple of model.grain_level = 2"});
  expect_refused(model("num_hidden_layers = 1000000\n"),
                 {"model.num_hidden_layers = 1000000", "at most"});
  expect_refused(model("num_experts = 100000\n"), {"model.num_experts = 100000", "at most"});
  expect_refused(model("vocab_size = 4294967296\n"), {"model.vocab_size = 4294967296", "at most"});
  expect_refused(model("hidden_size = 1073741824\nintermediate_size = 1073741824\n"),
                 {"parameters"});
  expect_refused("", {"data.train is empty", "cartesian tokenize"});
  expect_refused(kMinimal + "[train]\nbatch_sequences = 8\nmicro_batch_sequences = 3\n",
                 {"train.batch_sequences = 8", "train.micro_batch_sequences = 3"});
  expect_refused(kMinimal + "[train]\nbeta2 = 1.0\n", {"train.beta2", "below 1"});
  expect_refused(kMinimal + "[run]\ndir = \"\"\n", {"run.dir is empty"});
  EXPECT_NO_THROW(parse(model("sub_layers = 0\nmoe_top_k = 99\n")));  // dense: no experts
}

TEST(ConfigTest, SyntaxErrorsNameFileAndLine) {
  expect_refused(kMinimal + "[train]\nsteps = = 3\n", {"run.toml:4:"});
  expect_refused("[data]\ntrain = \"a\"\ntrain = \"b\"\n", {"run.toml:3:"});
  expect_refused("\xff\xfe", {"run.toml:1:"});
}

TEST(ConfigTest, Overrides) {
  const Config config =
      parse(kMinimal + "[train]\nsteps = 5\n",
            {"train.steps=6", "train.steps=9", "run.dir=runs/a-b", "data.train=/tmp/x y",
             "parallel.node_sizes=[2,2]", "train.learning_rate=2", "checkpoint.async=false",
             "run.progress=\"off\"", "data.valid=a=b"});
  EXPECT_EQ(config.train.steps, 9);
  EXPECT_EQ(config.run.dir, "runs/a-b");
  EXPECT_EQ(config.data.train, "/tmp/x y");
  EXPECT_EQ(config.parallel.node_sizes, (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(config.train.learning_rate, 2);
  EXPECT_FALSE(config.checkpoint.async);
  EXPECT_EQ(config.run.progress, "off");
  EXPECT_EQ(config.data.valid, "a=b");
  for (const char* setting : {"", "train.steps", "=3"}) {
    expect_error<ConfigError>([&] { parse(kMinimal, {setting}); }, {"section.key=value"});
  }
  expect_error<ConfigError>([] { parse(kMinimal, {"train.steps="}); },
                            {"--set train.steps", "integer"});
  expect_error<ConfigError>([] { parse(kMinimal, {"train.steps=1\ntrain.seed=2"}); },
                            {"--set train.steps"});
}

TEST(ConfigTest, TheTextFormReadsBackAsTheSame) {
  const Config config = parse(
      kMinimal, {"train.learning_rate=0.1", "train.eps=1e-20", "run.dir=\"a \\\"b\\\" \\\\ \\n c\"",
                 "data.valid=ä", "model.rope_theta=1e300", "parallel.node_sizes=[1,2]",
                 "train.seed=9007199254740992"});
  const std::string text = to_toml(config);
  const Config again = parse(text);
  EXPECT_EQ(to_toml(again), text);
  EXPECT_EQ(again.train.learning_rate, 0.1);
  EXPECT_EQ(again.train.eps, 1e-20);
  EXPECT_EQ(again.run.dir, "a \"b\" \\ \n c");
  EXPECT_EQ(again.data.valid, "ä");
  EXPECT_EQ(again.model, config.model);
  EXPECT_EQ(again.train.seed, 9007199254740992);
  Config copy = config;
  for (const ConfigField& field : config_fields(copy)) {
    EXPECT_FALSE(field.description.empty()) << field.key;
    EXPECT_NE(text.find(field.key.substr(field.key.find('.') + 1) + " = "), std::string::npos);
  }
}

TEST(ConfigTest, LoadNamesTheFile) {
  const auto files = make_posix_file_system();
  const TemporaryDirectory directory;
  expect_error<FileError>([&] { load_config(*files, directory / "none.toml", {}); },
                          {(directory / "none.toml").string()});
  files->write_atomically(directory / "run.toml", kMinimal + "[train]\nstep = 1\n");
  expect_error<ConfigError>([&] { load_config(*files, directory / "run.toml", {}); },
                            {(directory / "run.toml").string() + ":4: train.step"});
}

}  // namespace
}  // namespace cartesian
