#include "runtime/model/model_config.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace cartesian {

namespace {

using Json = nlohmann::ordered_json;

void require(bool condition, const std::string& message) {
  if (!condition) {
    throw ConfigError(message);
  }
}

/// Typed access to config.json's keys, with errors that name file and key.
class Keys {
 public:
  Keys(const Json& json, const std::string& path) : json_(json), path_(path) {}

  bool has(const char* key) const { return json_.contains(key) && !json_.at(key).is_null(); }

  template <class T>
  T get(const char* key, T fallback) const {
    return has(key) ? required<T>(key) : fallback;
  }

  template <class T>
  T required(const char* key) const {
    if (!has(key)) {
      throw FormatError(fmt::format("{}: key '{}' is missing", path_, key));
    }
    const Json& value = json_.at(key);
    const bool fits = std::is_same_v<T, bool>          ? value.is_boolean()
                      : std::is_same_v<T, std::string> ? value.is_string()
                      : std::is_integral_v<T>          ? value.is_number_integer()
                                                       : value.is_number();
    if (!fits) {
      throw FormatError(
          fmt::format("{}: key '{}' has the wrong type: {}", path_, key, value.dump()));
    }
    return value.get<T>();
  }

  void refuse(bool condition, const char* key, const char* what) const {
    if (condition) {
      throw FormatError(fmt::format("{}: key '{}': {} is not supported", path_, key, what));
    }
  }

 private:
  const Json& json_;
  const std::string& path_;
};

void refuse_unsupported(const Keys& keys) {
  const auto type = keys.required<std::string>("model_type");
  keys.refuse(type != "cartesian_moe" && type != "llama", "model_type",
              ("model type '" + type + "'").c_str());
  keys.refuse(keys.get<bool>("tie_word_embeddings", false), "tie_word_embeddings",
              "a tied embedding");
  keys.refuse(keys.get<std::int64_t>("num_key_value_heads",
                                     keys.required<std::int64_t>("num_attention_heads")) !=
                  keys.required<std::int64_t>("num_attention_heads"),
              "num_key_value_heads", "grouped-query attention");
  keys.refuse(keys.has("rope_scaling"), "rope_scaling", "rope scaling");
  keys.refuse(keys.get<bool>("attention_bias", false), "attention_bias", "an attention bias");
  keys.refuse(keys.get<std::string>("hidden_act", "silu") != "silu", "hidden_act",
              "an activation other than silu");
  keys.refuse(keys.get<bool>("fine_grain", false), "fine_grain", "fine-grained routing");
}

void read_moe(const Keys& keys, ModelConfig& config) {
  if (!keys.get<bool>("use_moe", keys.has("num_experts"))) {
    config.sub_layers = 0;
    return;
  }
  config.sub_layers = keys.get<bool>("c2_fine_grain", false) ? 2 : 1;
  config.num_experts = keys.required<std::int64_t>("num_experts");
  config.moe_top_k = keys.required<std::int64_t>("moe_top_k");
  keys.refuse(config.moe_top_k < 1, "moe_top_k", "routing other than top-k");
  config.grain_level = keys.get<std::int64_t>("grain_level", 1);
  config.use_residual = keys.get<bool>("use_residual", false);
  config.expert_interval = keys.get<std::int64_t>("expert_interval", 2);
  keys.refuse(keys.get<std::int64_t>("initial_moe_layer", -1) != -1, "initial_moe_layer",
              "a value other than -1");
  keys.refuse(!keys.get<bool>("interleave_moe_layer", true), "interleave_moe_layer", "false");
}

}  // namespace

std::int64_t ModelConfig::moe_layers() const {
  return sub_layers == 0 ? 0 : (num_hidden_layers + expert_interval - 1) / expert_interval;
}

void validate(const ModelConfig& config, const std::string& where) {
  const auto positive = [&](std::int64_t value, const char* key) {
    require(value >= 1, fmt::format("{}{} = {}: must be at least 1", where, key, value));
    require(value <= kLargestSize,
            fmt::format("{}{} = {}: must be at most {}", where, key, value, kLargestSize));
  };
  positive(config.vocab_size, "vocab_size");
  positive(config.hidden_size, "hidden_size");
  positive(config.intermediate_size, "intermediate_size");
  positive(config.num_hidden_layers, "num_hidden_layers");
  positive(config.num_attention_heads, "num_attention_heads");
  positive(config.max_position_embeddings, "max_position_embeddings");
  require(config.hidden_size % config.num_attention_heads == 0,
          fmt::format("{0}hidden_size = {1} is not a multiple of {0}num_attention_heads = {2}",
                      where, config.hidden_size, config.num_attention_heads));
  require(config.head_dim() % 2 == 0,
          fmt::format("{}hidden_size / num_attention_heads = {} must be even for rotary embedding",
                      where, config.head_dim()));
  require(
      config.sub_layers >= 0 && config.sub_layers <= 2,
      fmt::format("{}sub_layers = {}: must be 0 (dense), 1 (conventional MoE) or 2 (CartesianMoE)",
                  where, config.sub_layers));
  if (config.sub_layers == 0) {
    return;
  }
  positive(config.num_experts, "num_experts");
  positive(config.moe_top_k, "moe_top_k");
  positive(config.grain_level, "grain_level");
  positive(config.expert_interval, "expert_interval");
  require(config.moe_top_k <= config.num_experts,
          fmt::format("{0}moe_top_k = {1} is larger than {0}num_experts = {2}", where,
                      config.moe_top_k, config.num_experts));
  require(config.intermediate_size % config.grain_level == 0,
          fmt::format("{0}intermediate_size = {1} is not a multiple of {0}grain_level = {2}", where,
                      config.intermediate_size, config.grain_level));
}

std::string to_config_json(const ModelConfig& config) {
  Json json = {{"architectures", {"CartesianMoEForCausalLM"}},
               {"model_type", "cartesian_moe"},
               {"vocab_size", config.vocab_size},
               {"hidden_size", config.hidden_size},
               {"intermediate_size", config.intermediate_size},
               {"num_hidden_layers", config.num_hidden_layers},
               {"num_attention_heads", config.num_attention_heads},
               {"num_key_value_heads", config.num_attention_heads},
               {"max_position_embeddings", config.max_position_embeddings},
               {"rms_norm_eps", config.rms_norm_eps},
               {"rope_theta", config.rope_theta},
               {"initializer_range", config.initializer_range},
               {"hidden_act", "silu"},
               {"tie_word_embeddings", false},
               {"torch_dtype", "float32"},
               {"use_moe", config.sub_layers > 0}};
  if (config.sub_layers > 0) {
    json["num_experts"] = config.num_experts;
    json["moe_top_k"] = config.moe_top_k;
    json["grain_level"] = config.grain_level;
    json["c2_fine_grain"] = config.sub_layers == 2;
    json["use_residual"] = config.use_residual;
    json["initial_moe_layer"] = -1;
    json["interleave_moe_layer"] = true;
    json["expert_interval"] = config.expert_interval;
  }
  return json.dump(2) + "\n";
}

ModelConfig parse_config_json(const std::string& text, const std::string& path) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    throw FormatError(fmt::format("{}: not a JSON object", path));
  }
  const Keys keys(json, path);
  refuse_unsupported(keys);
  ModelConfig config;
  config.vocab_size = keys.required<std::int64_t>("vocab_size");
  config.hidden_size = keys.required<std::int64_t>("hidden_size");
  config.intermediate_size = keys.required<std::int64_t>("intermediate_size");
  config.num_hidden_layers = keys.required<std::int64_t>("num_hidden_layers");
  config.num_attention_heads = keys.required<std::int64_t>("num_attention_heads");
  config.max_position_embeddings = keys.required<std::int64_t>("max_position_embeddings");
  config.rms_norm_eps = keys.get<double>("rms_norm_eps", 1e-6);
  config.rope_theta = keys.get<double>("rope_theta", 10000);
  config.initializer_range = keys.get<double>("initializer_range", 0.02);
  read_moe(keys, config);
  try {
    validate(config, "");
  } catch (const ConfigError& error) {
    throw FormatError(fmt::format("{}: {}", path, error.what()));
  }
  return config;
}

}  // namespace cartesian
