// config.json: ours read back, the authors' read, and what cannot be read refused by name.

#include "runtime/model/model_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "runtime/checkpoint/checkpoint_reader.h"
#include "tests/support/expect_error.h"

namespace cartesian {
namespace {

using Json = nlohmann::json;

Json good() { return Json::parse(to_config_json(ModelConfig())); }

ModelConfig parse(const Json& json) { return parse_config_json(json.dump(), "dir/config.json"); }

TEST(ModelConfigTest, RoundTrip) {
  for (const std::int64_t sub_layers : {0, 1, 2}) {
    ModelConfig config;
    config.vocab_size = 32000;
    config.hidden_size = 96;
    config.num_attention_heads = 6;
    config.rope_theta = 12345.5;
    config.rms_norm_eps = 1e-5;
    config.initializer_range = 0.01;
    config.sub_layers = sub_layers;
    if (sub_layers > 0) {  // a dense model does not keep what it has no use for
      config.num_experts = 32;
      config.moe_top_k = 3;
      config.grain_level = 4;
      config.use_residual = false;
      config.expert_interval = 1;
    }
    EXPECT_EQ(parse_config_json(to_config_json(config), "x"), config);
  }
}

TEST(ModelConfigTest, RoutingRoundTrip) {
  for (const char* routing : {"top_k", "top_p", "hash"}) {
    ModelConfig config;
    config.sub_layers = 1;
    config.grain_level = 1;
    config.routing = routing;
    if (config.routing_kind() == RoutingKind::top_p) {
      config.moe_top_p = 0.55;
    }
    EXPECT_EQ(parse_config_json(to_config_json(config), "x"), config) << routing;
  }
}

TEST(ModelConfigTest, TopPHasOnlyANominalK) {
  ModelConfig config;
  config.routing = "top_p";
  config.moe_top_k = 3;
  EXPECT_NO_THROW(check_same_model(parse_config_json(to_config_json(config), "x"), config, "x"));
  config.num_experts = 1;
  config.moe_top_k = 1;
  EXPECT_EQ(parse_config_json(to_config_json(config), "x"), config);
}

TEST(ModelConfigTest, ARouterBiasIsSaidOnlyWhereThereIsOne) {
  EXPECT_FALSE(good().contains("router_bias"));
  ModelConfig config;
  config.router_bias = true;
  const ModelConfig read = parse_config_json(to_config_json(config), "x");
  EXPECT_EQ(read, config);
  expect_error<ConfigError>([&] { check_same_model(read, ModelConfig(), "dir"); },
                            {"dir", "router_bias"});
}

TEST(ModelConfigTest, OtherToolsDoNotTakeItForLlama) {
  EXPECT_EQ(good()["model_type"], "cartesian_moe");
}

TEST(ModelConfigTest, ReadsTheRowsOfThePapersTable) {
  Json json = good();
  json["model_type"] = "llama";
  json["use_moe"] = false;
  EXPECT_EQ(parse(json).sub_layers, 0);
  json["use_moe"] = true;
  json["c2_fine_grain"] = false;
  json["grain_level"] = 1;
  EXPECT_EQ(parse(json).sub_layers, 1);
  EXPECT_EQ(parse(json).expert_width(), parse(json).intermediate_size);
  EXPECT_EQ(parse(json).shared_ffns(), json["use_residual"] ? 1 : 0);
  json["moe_top_k"] = -1;
  EXPECT_EQ(parse(json).routing_kind(), RoutingKind::top_p);
  EXPECT_EQ(parse(json).moe_top_p, 0.4);
  json["moe_top_k"] = -2;
  EXPECT_EQ(parse(json).routing_kind(), RoutingKind::hash);
  EXPECT_EQ(parse(json).moe_top_k, 2);
  json["moe_top_k"] = 4;
  json["fine_grain"] = true;
  json["grain_level"] = 2;
  json["use_residual"] = true;
  EXPECT_TRUE(parse(json).fine_grained());
  EXPECT_EQ(parse(json).shared_ffns(), 2);
  json["fine_grain"] = false;
  json["moe_top_k"] = 2;
  json["c2_fine_grain"] = true;
  json["grain_level"] = 2;
  EXPECT_EQ(parse(json).sub_layers, 2);
  EXPECT_EQ(parse(json).expert_width(), parse(json).intermediate_size / 2);
}

TEST(ModelConfigTest, RefusesWhatIsNotSupportedByName) {
  const auto refused = [](const char* key, const Json& value, const char* reason) {
    SCOPED_TRACE(key);
    Json json = good();
    json[key] = value;
    expect_error<FormatError>([&] { parse(json); }, {"dir/config.json", key, reason});
  };
  refused("model_type", "mixtral", "not supported");
  refused("tie_word_embeddings", true, "tied");
  refused("num_key_value_heads", 2, "grouped");
  refused("rope_scaling", Json::object({{"type", "linear"}}), "rope scaling");
  refused("attention_bias", true, "bias");
  refused("hidden_act", "gelu", "silu");
  refused("fine_grain", true, "c2_fine_grain");
  refused("mlp_bias", true, "bias");
  refused("head_dim", 128, "hidden_size / num_attention_heads");
  refused("rope_parameters", Json::object({{"rope_theta", 5e5}}), "rope_theta");
  refused("moe_top_k", 0, "routing");
  refused("initial_moe_layer", 3, "-1");
  refused("interleave_moe_layer", false, "false");
}

TEST(ModelConfigTest, KeysThatChangeNothingAreRead) {
  Json json = good();
  json["head_dim"] = json["hidden_size"].get<int>() / json["num_attention_heads"].get<int>();
  json["rope_scaling"] = nullptr;
  json["attention_bias"] = false;
  json["pretraining_tp"] = 1;
  EXPECT_EQ(parse(json), ModelConfig());
}

TEST(ModelConfigTest, RefusesWhatCannotBe) {
  const auto refused = [](const char* key, const Json& value) {
    SCOPED_TRACE(std::string(key) + " = " + value.dump());
    Json json = good();
    json.erase("num_key_value_heads");
    json[key] = value;
    expect_error<FormatError>([&] { parse(json); }, {"dir/config.json", key});
  };
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_experts",
        "grain_level", "expert_interval", "max_position_embeddings"}) {
    for (const Json& value : {Json(0), Json(-1), Json("8"), Json(1.5), Json(true), Json::array(),
                              Json(std::int64_t{1} << 62), Json(~std::uint64_t{0})}) {
      refused(key, value);
    }
  }
  for (const char* key : {"rms_norm_eps", "rope_theta", "initializer_range"}) {
    refused(key, -1);
    refused(key, "x");
  }
  refused("num_attention_heads", 7);
  refused("moe_top_k", 99);
  refused("grain_level", 3);
  refused("use_residual", 1);
  for (const char* key : {"model_type", "vocab_size", "num_attention_heads", "num_experts"}) {
    SCOPED_TRACE(key);
    Json json = good();
    json.erase(key);
    expect_error<FormatError>([&] { parse(json); }, {"dir/config.json", key, "missing"});
  }
}

TEST(ModelConfigTest, RefusesModelsThatNoMachineHolds) {
  Json json = good();
  json["hidden_size"] = 1 << 30;
  json["intermediate_size"] = 1 << 30;
  expect_error<FormatError>([&] { parse(json); }, {"dir/config.json", "parameters"});
}

TEST(ModelConfigTest, RefusesWhatIsNotJson) {
  for (const std::string text :
       {"", "{", "[]", "3", "null", "\"x\"", "{\"a\": 1} {}", "\xff\xff"}) {
    SCOPED_TRACE(text);
    expect_error<FormatError>([&] { parse_config_json(text, "dir/config.json"); },
                              {"dir/config.json"});
  }
  expect_error<FormatError>([] { parse_config_json(std::string(200000, '['), "dir/config.json"); },
                            {"dir/config.json"});
}

TEST(ModelConfigTest, MoeBlocks) {
  ModelConfig config;
  config.num_hidden_layers = 5;
  config.expert_interval = 2;
  EXPECT_EQ(config.moe_layers(), 3);
  EXPECT_TRUE(config.is_moe_block(0));
  EXPECT_FALSE(config.is_moe_block(1));
  EXPECT_TRUE(config.is_moe_block(4));
  config.sub_layers = 0;
  EXPECT_EQ(config.moe_layers(), 0);
  EXPECT_FALSE(config.is_moe_block(0));
}

}  // namespace
}  // namespace cartesian
