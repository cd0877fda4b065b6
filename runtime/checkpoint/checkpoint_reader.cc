#include "runtime/checkpoint/checkpoint_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "base/json.h"
#include "runtime/model/tensor_names.h"

namespace cartesian {

namespace {

/// A constant that older tools keep beside the weights: rope_theta says the same.
constexpr std::string_view kRotaryConstant = ".rotary_emb.inv_freq";

std::span<float> range_of(std::span<float> array, const NamedTensor& tensor) {
  return array.subspan(static_cast<std::size_t>(tensor.offset),
                       static_cast<std::size_t>(tensor.shape.numel()));
}

}  // namespace

CheckpointReader::CheckpointReader(FileSystem& files, Path directory)
    : files_(files), directory_(std::move(directory)) {
  const Path config = directory_ / kConfigFile;
  if (!files_.exists(config)) {
    throw FileError(fmt::format("{}: not a checkpoint: there is no {} in it", directory_.string(),
                                kConfigFile));
  }
  model_ = parse_config_json(files_.read(config), config.string());
  weights_ = read_index(kIndexFile, "model.safetensors");
  const Path state = directory_ / kTrainerFile;
  if (files_.exists(state)) {
    state_ = parse_trainer_state(files_.read(state), state.string());
  }
}

CheckpointReader::Index CheckpointReader::read_index(const char* index_file,
                                                     const char* single_file) {
  const Path index = directory_ / index_file;
  if (files_.exists(index)) {
    return parse_index(files_.read(index), index.string());
  }
  if (!files_.exists(directory_ / single_file)) {
    throw FileError(fmt::format("{}: not a checkpoint: there is neither {} nor {} in it",
                                directory_.string(), index_file, single_file));
  }
  const auto reader = std::make_unique<SafetensorsReader>(files_, directory_ / single_file);
  Index names;
  for (const auto& [name, entry] : reader->tensors()) {
    names.emplace(name, single_file);
  }
  return names;
}

void CheckpointReader::verify(bool with_optimizer) const {
  const Path path = directory_ / kChecksumsFile;
  if (!files_.exists(path)) {
    return;
  }
  const nlohmann::json json = parse_json(files_.read(path), path.string());
  const nlohmann::json& listed = json_at(json, "files", path.string());
  if (!listed.is_object()) {
    throw FormatError(fmt::format("{}: 'files' is not an object", path.string()));
  }
  for (const auto& [name, hash] : listed.items()) {
    if (!with_optimizer && name.starts_with("optimizer")) {
      continue;
    }
    const Path file = directory_ / Path(name).filename();
    const auto contents = files_.map(file);
    if (!hash.is_string() || hash.get<std::string>() != hash_hex(hash_bytes(contents->bytes()))) {
      throw FormatError(fmt::format("{}: damaged: its checksum is not the one in {}", file.string(),
                                    kChecksumsFile));
    }
  }
}

void CheckpointReader::read_tensor(const Index& index, const std::string& name, const Shape& shape,
                                   std::span<float> out) {
  const auto found = index.find(name);
  if (found == index.end()) {
    throw FormatError(fmt::format("{}: tensor '{}' is missing", directory_.string(), name));
  }
  auto& reader = open_[found->second];
  if (!reader) {
    reader = std::make_unique<SafetensorsReader>(files_, directory_ / found->second);
  }
  const SafetensorsEntry& entry = reader->at(name);
  bool same = static_cast<int>(entry.shape.size()) == shape.rank();
  for (int i = 0; same && i < shape.rank(); ++i) {
    same = entry.shape[static_cast<std::size_t>(i)] == shape[i];
  }
  if (!same) {
    throw FormatError(fmt::format("{}: tensor '{}' has shape [{}] where the model has {}",
                                  reader->path().string(), name, fmt::join(entry.shape, ", "),
                                  shape.to_string()));
  }
  reader->read_float32(name, out);
}

void CheckpointReader::refuse_unknown_weights() const {
  const auto known = tensor_names(model_);
  for (const auto& [name, file] : weights_) {
    if (!known.contains(name) && !name.ends_with(kRotaryConstant)) {
      throw FormatError(fmt::format("{}: tensor '{}' is not one of the model that {} describes",
                                    (directory_ / file).string(), name, kConfigFile));
    }
  }
}

void CheckpointReader::read_weights(ParameterStore& parameters) {
  refuse_unknown_weights();
  for (const NamedTensor& tensor : parameters.tensors()) {
    read_tensor(weights_, tensor.name, tensor.shape, range_of(parameters.weights(), tensor));
  }
}

void CheckpointReader::read_moments(ParameterStore& parameters) {
  const Index moments = read_index(kOptimizerIndexFile, "optimizer.safetensors");
  std::vector<float> whole;  // of a tensor of which this rank has a part
  for (const NamedTensor& tensor : parameters.tensors()) {
    ElementRange held{tensor.offset, tensor.offset + tensor.shape.numel()};
    if (tensor.offset < parameters.dense_size()) {
      held = intersect(held, parameters.dense_moments());
    }
    if (held.size() == 0) {
      continue;
    }
    const auto read = [&](const std::string& prefix, std::span<float> out) {
      if (held.size() == tensor.shape.numel()) {
        read_tensor(moments, prefix + tensor.name, tensor.shape, out);
        return;
      }
      whole.resize(static_cast<std::size_t>(tensor.shape.numel()));
      read_tensor(moments, prefix + tensor.name, tensor.shape, whole);
      std::copy_n(whole.begin() + (held.begin - tensor.offset), held.size(), out.begin());
    };
    read("exp_avg.", parameters.first_moments(held));
    read("exp_avg_sq.", parameters.second_moments(held));
  }
}

void check_same_model(const ModelConfig& checkpoint, const ModelConfig& configured,
                      const std::string& directory) {
  const auto compare = [&](auto ModelConfig::*member, const char* key) {
    if (checkpoint.*member != configured.*member) {
      throw ConfigError(fmt::format(
          "{}: the checkpoint is of another model: {} = {} there, {} in the configuration",
          directory, key, checkpoint.*member, configured.*member));
    }
  };
  compare(&ModelConfig::vocab_size, "vocab_size");
  compare(&ModelConfig::hidden_size, "hidden_size");
  compare(&ModelConfig::intermediate_size, "intermediate_size");
  compare(&ModelConfig::num_hidden_layers, "num_hidden_layers");
  compare(&ModelConfig::num_attention_heads, "num_attention_heads");
  compare(&ModelConfig::rms_norm_eps, "rms_norm_eps");
  compare(&ModelConfig::rope_theta, "rope_theta");
  compare(&ModelConfig::document_attention, "document_attention");
  compare(&ModelConfig::sub_layers, "sub_layers");
  if (configured.sub_layers > 0) {
    compare(&ModelConfig::num_experts, "num_experts");
    compare(&ModelConfig::routing, "routing");
    if (configured.routing_kind() == RoutingKind::top_p) {
      compare(&ModelConfig::moe_top_p, "moe_top_p");  // moe_top_k is nominal, and not kept
    } else {
      compare(&ModelConfig::moe_top_k, "moe_top_k");
    }
    compare(&ModelConfig::grain_level, "grain_level");
    compare(&ModelConfig::use_residual, "use_residual");
    compare(&ModelConfig::router_bias, "router_bias");
    compare(&ModelConfig::expert_interval, "expert_interval");
  }
}

}  // namespace cartesian
