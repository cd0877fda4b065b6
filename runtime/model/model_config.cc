#include "runtime/model/model_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "kernels/top_k.h"
#include "runtime/model/parameter_count.h"

namespace cartesian {

namespace {

using Json = nlohmann::ordered_json;

void require(bool condition, const std::string& message) {
  if (!condition) {
    throw ConfigError(message);
  }
}

// Beyond these a size is a mistake or an attack: no product of two overflows, and no loop over
// blocks or experts runs for ever.
constexpr std::int64_t kMaxSize = kLargestSize;
constexpr std::int64_t kMaxBlocks = 1 << 16;
constexpr std::int64_t kMaxExperts = std::numeric_limits<std::int16_t>::max();
constexpr double kMaxParameters = 1e13;

/// Typed access to config.json's keys, with errors that name file and key.
class Keys {
 public:
  Keys(const nlohmann::json& json, const std::string& path) : json_(json), path_(path) {}

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
    const nlohmann::json& value = json_.at(key);
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
  const nlohmann::json& json_;
  const std::string& path_;
};

void refuse_unsupported(const Keys& keys) {
  const auto type = keys.required<std::string>("model_type");
  keys.refuse(type != "cartesian_moe" && type != "llama", "model_type",
              ("model type '" + type + "'").c_str());
  keys.refuse(keys.get<bool>("tie_word_embeddings", false), "tie_word_embeddings",
              "a tied embedding");
  const auto hidden = keys.required<std::int64_t>("hidden_size");
  const auto heads = keys.required<std::int64_t>("num_attention_heads");
  keys.refuse(keys.get<std::int64_t>("num_key_value_heads", heads) != heads, "num_key_value_heads",
              "grouped-query attention");
  keys.refuse(
      keys.has("head_dim") && heads != 0 && keys.get<std::int64_t>("head_dim", 0) != hidden / heads,
      "head_dim", "a value other than hidden_size / num_attention_heads");
  keys.refuse(keys.has("rope_scaling"), "rope_scaling", "rope scaling");
  keys.refuse(keys.has("rope_parameters"), "rope_parameters",
              "the newer way to write rope_theta and rope scaling");
  keys.refuse(keys.get<bool>("attention_bias", false), "attention_bias", "an attention bias");
  keys.refuse(keys.get<bool>("mlp_bias", false), "mlp_bias", "a bias in the FFN");
  keys.refuse(keys.get<std::string>("hidden_act", "silu") != "silu", "hidden_act",
              "an activation other than silu");
}

/// moe_top_k says what kind of routing it is: k, or -1 for top_p, or -k for a hash (k at least 2).
void read_routing(const Keys& keys, ModelConfig& config) {
  const auto top_k = keys.required<std::int64_t>("moe_top_k");
  if (top_k > 0) {
    config.moe_top_k = top_k;
    return;
  }
  keys.refuse(top_k == 0 || top_k < -kMaxExperts, "moe_top_k", "a value that names no routing");
  config.routing = top_k == -1 ? "top_p" : "hash";
  config.moe_top_k = top_k == -1 ? std::min<std::int64_t>(2, config.num_experts) : -top_k;
  config.moe_top_p = keys.get<double>("moe_top_p", 0.4);
}

/// How much narrower the experts are. Without a flag that says so they are not.
std::int64_t read_grain_level(const Keys& keys) {
  const bool cartesian = keys.get<bool>("c2_fine_grain", false);
  const bool fine = keys.get<bool>("fine_grain", false);
  const auto level = keys.get<std::int64_t>("grain_level", 1);
  keys.refuse(cartesian && fine, "fine_grain", "together with c2_fine_grain, it");
  keys.refuse(fine && level < 2, "grain_level", "a fine-grained layer with a value below 2");
  keys.refuse(!fine && !cartesian && level != 1, "grain_level",
              "a value other than 1 without fine_grain or c2_fine_grain");
  return level;
}

void read_moe(const Keys& keys, ModelConfig& config) {
  if (!keys.get<bool>("use_moe", keys.has("num_experts"))) {
    config.sub_layers = 0;
    return;
  }
  config.sub_layers = keys.get<bool>("c2_fine_grain", false) ? 2 : 1;
  config.num_experts = keys.required<std::int64_t>("num_experts");
  read_routing(keys, config);
  config.grain_level = read_grain_level(keys);
  config.use_residual = keys.get<bool>("use_residual", false);
  config.router_bias = keys.get<bool>("router_bias", false);
  config.expert_interval = keys.get<std::int64_t>("expert_interval", 2);
  keys.refuse(keys.get<std::int64_t>("initial_moe_layer", -1) != -1, "initial_moe_layer",
              "a value other than -1");
  keys.refuse(!keys.get<bool>("interleave_moe_layer", true), "interleave_moe_layer", "false");
}

/// As read_routing() reads it.
std::int64_t json_top_k(const ModelConfig& config) {
  switch (config.routing_kind()) {
    case RoutingKind::top_p:
      return -1;
    case RoutingKind::hash:
      return -config.moe_top_k;
    case RoutingKind::top_k:
      break;
  }
  return config.moe_top_k;
}

/// 1 <= value <= limit.
void require_size(const std::string& where, const char* key, std::int64_t value,
                  std::int64_t limit = kMaxSize) {
  require(value >= 1, fmt::format("{}{} = {}: must be at least 1", where, key, value));
  require(value <= limit, fmt::format("{}{} = {}: must be at most {}", where, key, value, limit));
}

void require_number(const std::string& where, const char* key, double value, double minimum) {
  require(value >= minimum && std::isfinite(value),
          fmt::format("{}{} = {}: must be at least {}", where, key, value, minimum));
}

void validate_backbone(const ModelConfig& config, const std::string& where) {
  require_size(where, "vocab_size", config.vocab_size);
  require_size(where, "hidden_size", config.hidden_size);
  require_size(where, "intermediate_size", config.intermediate_size);
  require_size(where, "num_hidden_layers", config.num_hidden_layers, kMaxBlocks);
  require_size(where, "num_attention_heads", config.num_attention_heads);
  require_size(where, "max_position_embeddings", config.max_position_embeddings);
  require_number(where, "rms_norm_eps", config.rms_norm_eps, 0);
  require_number(where, "rope_theta", config.rope_theta, 1);
  require_number(where, "initializer_range", config.initializer_range, 0);
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
}

void validate_moe(const ModelConfig& config, const std::string& where) {
  require_size(where, "num_experts", config.num_experts, kMaxExperts);
  require_size(where, "moe_top_k", config.moe_top_k);
  require_size(where, "grain_level", config.grain_level);
  require_size(where, "expert_interval", config.expert_interval);
  require(config.routing == "top_k" || config.routing == "top_p" || config.routing == "hash",
          fmt::format("{}routing = '{}': must be top_k, top_p or hash", where, config.routing));
  require(config.routing != "hash" || config.moe_top_k >= 2,
          fmt::format("{}moe_top_k = {}: hash routing needs at least 2", where, config.moe_top_k));
  require(config.moe_top_p > 0 && config.moe_top_p < 1,
          fmt::format("{}moe_top_p = {}: must be above 0 and below 1", where, config.moe_top_p));
  require(!config.router_bias || config.routing == "top_k",
          fmt::format("{0}router_bias balances top_k routing, not {0}routing = '{1}'", where,
                      config.routing));
  require(config.moe_top_k <= config.num_experts,
          fmt::format("{0}moe_top_k = {1} is larger than {0}num_experts = {2}", where,
                      config.moe_top_k, config.num_experts));
  require(config.intermediate_size % config.grain_level == 0,
          fmt::format("{0}intermediate_size = {1} is not a multiple of {0}grain_level = {2}", where,
                      config.intermediate_size, config.grain_level));
}

}  // namespace

RoutingKind ModelConfig::routing_kind() const {
  return routing == "top_p"  ? RoutingKind::top_p
         : routing == "hash" ? RoutingKind::hash
                             : RoutingKind::top_k;
}

std::int64_t ModelConfig::max_choices() const {
  return routing_kind() == RoutingKind::top_p ? top_p_choices(moe_top_p, num_experts) : moe_top_k;
}

std::int64_t ModelConfig::moe_layers() const {
  return sub_layers == 0 ? 0 : (num_hidden_layers + expert_interval - 1) / expert_interval;
}

void validate(const ModelConfig& config, const std::string& where) {
  validate_backbone(config, where);
  if (config.sub_layers > 0) {
    validate_moe(config, where);
  }
  const double parameters = count_parameters(config).matrices();
  require(parameters <= kMaxParameters,
          fmt::format("{}*: a model of these sizes has {:.1e} parameters, more than {:.0e}", where,
                      parameters, kMaxParameters));
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
               {"document_attention", config.document_attention},
               {"hidden_act", "silu"},
               {"tie_word_embeddings", false},
               {"torch_dtype", "float32"},
               {"use_moe", config.sub_layers > 0}};
  if (config.sub_layers > 0) {
    json["num_experts"] = config.num_experts;
    json["moe_top_k"] = json_top_k(config);
    if (config.routing_kind() == RoutingKind::top_p) {
      json["moe_top_p"] = config.moe_top_p;
    }
    json["grain_level"] = config.grain_level;
    json["c2_fine_grain"] = config.sub_layers == 2;
    json["fine_grain"] = config.fine_grained();
    json["use_residual"] = config.use_residual;
    json["initial_moe_layer"] = -1;
    json["interleave_moe_layer"] = true;
    json["expert_interval"] = config.expert_interval;
    if (config.router_bias) {
      json["router_bias"] = true;
    }
  }
  return json.dump(2) + "\n";
}

ModelConfig parse_config_json(const std::string& text, const std::string& path) {
  const nlohmann::json json = parse_json(text, path);
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
  config.document_attention = keys.get<bool>("document_attention", false);
  read_moe(keys, config);
  try {
    validate(config, "");
  } catch (const ConfigError& error) {
    throw FormatError(fmt::format("{}: {}", path, error.what()));
  }
  return config;
}

}  // namespace cartesian
