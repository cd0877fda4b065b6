#pragma once
// The architecture of a model: what config.json of a checkpoint says. See docs/formats.md.

#include <cstdint>
#include <string>

namespace cartesian {

/// No size may be larger: products of two fit in 64 bits.
inline constexpr std::int64_t kLargestSize = (std::int64_t{1} << 31) - 1;

/// How a sub-layer chooses a token's experts: the k most probable; in order of probability until
/// their sum exceeds a threshold; or the k largest of a fixed random row of the token's id.
enum class RoutingKind : std::uint8_t { top_k, top_p, hash };

/// One implementation of a sub-layer serves every row of the paper's table: a block's FFN is dense
/// (sub_layers = 0), a conventional MoE (1) or a Cartesian product of two sub-layers A and B (2). A
/// conventional MoE with a grain_level above 1 is fine-grained: its shared expert is the mean of
/// grain_level FFNs as wide as the routed ones.
struct ModelConfig {
  std::int64_t vocab_size = 257;
  std::int64_t hidden_size = 256;
  std::int64_t intermediate_size = 1024;  ///< of the dense blocks' FFN
  std::int64_t num_hidden_layers = 4;
  std::int64_t num_attention_heads = 4;
  std::int64_t max_position_embeddings = 256;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000;
  double initializer_range = 0.02;
  bool document_attention = false;  ///< attention stops at document boundaries

  std::int64_t sub_layers = 2;
  std::int64_t num_experts = 16;  ///< per sub-layer
  std::string routing = "top_k";  ///< "top_k", "top_p" or "hash"
  std::int64_t moe_top_k = 2;     ///< per sub-layer; of top_p the nominal number
  double moe_top_p = 0.4;         ///< of top_p: the sum of probabilities to exceed
  std::int64_t grain_level = 2;   ///< experts are intermediate_size / grain_level wide
  /// A bias per expert that takes part in the choice alone (kernels/biased_top_k.h); of top_k.
  bool router_bias = false;
  bool use_residual = true;  ///< a shared expert in each sub-layer, mixed by a learned coefficient
  std::int64_t expert_interval = 2;  ///< blocks 0, i, 2 i, ... are MoE

  std::int64_t head_dim() const { return hidden_size / num_attention_heads; }
  std::int64_t expert_width() const { return intermediate_size / grain_level; }
  RoutingKind routing_kind() const;
  /// The most experts that a token can visit in a sub-layer.
  std::int64_t max_choices() const;
  bool fine_grained() const { return sub_layers == 1 && grain_level > 1; }
  /// FFNs that make up a sub-layer's shared expert; their mean is taken.
  std::int64_t shared_ffns() const { return !use_residual ? 0 : fine_grained() ? grain_level : 1; }
  bool is_moe_block(std::int64_t block) const {
    return sub_layers > 0 && block % expert_interval == 0;
  }
  std::int64_t moe_layers() const;
  bool operator==(const ModelConfig&) const = default;
};

/// Throws ConfigError naming the key (prefixed by `where`, e.g. "model." or a file) if sizes cannot
/// work together.
void validate(const ModelConfig& config, const std::string& where);

/// config.json's text: LLaMA's keys and the paper's.
std::string to_config_json(const ModelConfig& config);
/// Reads config.json's text. Throws FormatError naming `path` and the key; what this build lacks of
/// LLaMA is refused by name.
ModelConfig parse_config_json(const std::string& text, const std::string& path);

}  // namespace cartesian
