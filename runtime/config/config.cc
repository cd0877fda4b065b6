#include "runtime/config/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "base/error.h"
#include "base/suggest.h"

namespace cartesian {

namespace {

/// Where a value stands, for errors: "file.toml:12: train.steps" or "--set train.steps".
std::string place_of(const std::string& where, const toml::node& node, const std::string& key) {
  const auto line = node.source().begin.line;
  return line > 0 && where != "--set" ? fmt::format("{}:{}: {}", where, line, key)
                                      : fmt::format("{} {}", where, key);
}

[[noreturn]] void wrong_type(const std::string& place, std::string_view wanted) {
  throw ConfigError(fmt::format("{}: must be {}", place, wanted));
}

void check_minimum(const std::string& place, double value, double minimum) {
  if (!(value >= minimum) || !std::isfinite(value)) {
    throw ConfigError(fmt::format("{} = {}: must be at least {}", place, value, minimum));
  }
}

std::int64_t integer(const toml::node& node, const std::string& place, const ConfigField& field) {
  if (!node.is_integer()) {
    wrong_type(place, "an integer");
  }
  const std::int64_t value = node.as_integer()->get();
  check_minimum(place, static_cast<double>(value), field.minimum);
  if (value > field.maximum) {
    throw ConfigError(fmt::format("{} = {}: must be at most {}", place, value, field.maximum));
  }
  return value;
}

/// Stores a TOML value in its field; one overload per type a key may have.
struct Assign {
  const ConfigField& field;
  const toml::node& node;
  const std::string& place;

  void operator()(std::int64_t* target) const { *target = integer(node, place, field); }
  void operator()(double* target) const {
    const auto value = node.value<double>();
    if (!node.is_number() || !value) {
      wrong_type(place, "a number");
    }
    check_minimum(place, *value, field.minimum);
    *target = *value;
  }
  void operator()(bool* target) const {
    if (!node.is_boolean()) {
      wrong_type(place, "true or false");
    }
    *target = node.as_boolean()->get();
  }
  void operator()(std::string* target) const {
    if (!node.is_string()) {
      wrong_type(place, "a string");
    }
    const std::string& value = node.as_string()->get();
    if (!field.choices.empty() && std::ranges::find(field.choices, value) == field.choices.end()) {
      throw ConfigError(fmt::format("{} = \"{}\": must be one of {}", place, value,
                                    fmt::join(field.choices, ", ")));
    }
    *target = value;
  }
  void operator()(std::vector<std::int64_t>* target) const {
    if (!node.is_array()) {
      wrong_type(place, "a list of integers");
    }
    target->clear();
    for (const toml::node& element : *node.as_array()) {
      target->push_back(integer(element, place, field));
    }
  }
  void operator()(PerSubLayer* target) const {
    const toml::array* list = node.as_array();
    if (list == nullptr ? !node.is_number() : list->empty() || list->size() > 2) {
      wrong_type(place, "a number, or a list of one or two: A's and B's");
    }
    target->values.resize(list == nullptr ? 1 : list->size());
    for (std::size_t i = 0; i < target->values.size(); ++i) {
      const toml::node& element = list == nullptr ? node : (*list)[i];
      Assign{field, element, place}(&target->values[i]);
    }
  }
};

void assign(std::vector<ConfigField>& fields, const std::string& where, const std::string& key,
            const toml::node& node) {
  const std::string place = place_of(where, node, key);
  const auto field = std::ranges::find(fields, key, &ConfigField::key);
  if (field == fields.end()) {
    std::vector<std::string> keys;
    std::ranges::transform(fields, std::back_inserter(keys), &ConfigField::key);
    throw ConfigError(fmt::format("{}: unknown key{}", place, did_you_mean(key, keys)));
  }
  std::visit(Assign{*field, node, place}, field->target);
}

void assign_tables(std::vector<ConfigField>& fields, const std::string& where,
                   const toml::table& table) {
  for (const auto& [section, value] : table) {
    const std::string name(section.str());
    if (!value.is_table()) {
      assign(fields, where, name, value);
      continue;
    }
    for (const auto& [key, node] : *value.as_table()) {
      assign(fields, where, name + "." + std::string(key.str()), node);
    }
  }
}

toml::table parse_toml(std::string_view text, const std::string& where) {
  try {
    return toml::parse(text, where);
  } catch (const toml::parse_error& error) {
    throw ConfigError(
        fmt::format("{}:{}: {}", where, error.source().begin.line, error.description()));
  }
}

void apply_override(std::vector<ConfigField>& fields, const std::string& setting) {
  const auto equals = setting.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw ConfigError(fmt::format("--set {}: write it as section.key=value", setting));
  }
  const std::string key = setting.substr(0, equals);
  const std::string value = setting.substr(equals + 1);
  toml::table table;
  try {
    table = toml::parse("value = " + value);
  } catch (const toml::parse_error&) {
    table.clear();
  }
  if (table.size() != 1) {  // a bare word, or lines that would set something else: a string
    table.insert_or_assign("value", value);
  }
  assign(fields, "--set", key, *table.get("value"));
}

/// Of a value that only routers with learned logits can use.
void validate_router_key(const ModelConfig& model, const char* key, const PerSubLayer& value) {
  const auto count = static_cast<std::int64_t>(value.values.size());
  if (count > 1 && count != model.sub_layers) {
    throw ConfigError(
        fmt::format("{} has {} values, but model.sub_layers = {}", key, count, model.sub_layers));
  }
  if (value.any() && model.sub_layers == 0) {
    throw ConfigError(
        fmt::format("{} needs a router, and with model.sub_layers = 0 there is none", key));
  }
  if (value.any() && model.routing_kind() == RoutingKind::hash) {
    throw ConfigError(fmt::format(
        "{} needs a router that learns, and that of model.routing = \"hash\" does not", key));
  }
}

void validate_balancing(const ModelConfig& model, const TrainConfig& train) {
  validate_router_key(model, "train.z_loss", train.z_loss);
  validate_router_key(model, "train.balance_bias", train.balance_bias);
  validate_router_key(model, "train.router_jitter", train.router_jitter);
  // There is a default: a model without routers, or with a hash for one, leaves it unused.
  PerSubLayer unused = train.balance_loss;
  std::ranges::fill(unused.values, 0.0);
  validate_router_key(model, "train.balance_loss", unused);
  for (const double jitter : train.router_jitter.values) {
    if (jitter >= 1) {
      throw ConfigError(fmt::format("train.router_jitter = {}: must be below 1", jitter));
    }
  }
  for (const double rate : train.balance_bias.values) {
    if (rate > 1) {  // probabilities are at most 1: one step would decide every choice
      throw ConfigError(fmt::format("train.balance_bias = {}: must be at most 1", rate));
    }
  }
  if (train.balance_bias.any() && model.routing_kind() != RoutingKind::top_k) {
    throw ConfigError(fmt::format(
        "train.balance_bias balances top_k routing, not model.routing = \"{}\"", model.routing));
  }
}

void validate_sizes(const Config& config) {
  validate_balancing(config.model, config.train);
  validate(config.model, "model.");
  if (config.data.train.empty()) {
    throw ConfigError(
        "data.train is empty: set it to the prefix of a .bin/.idx pair made by 'cartesian "
        "tokenize'");
  }
  if (config.replan.when != "off" &&
      config.replan.time_budget_s > longest_planning_s(config.comm)) {
    throw ConfigError(
        fmt::format("replan.time_budget_s = {}: must be at most a quarter of comm.timeout_s = {}",
                    config.replan.time_budget_s, config.comm.timeout_s));
  }
  if (config.train.batch_sequences % config.train.micro_batch_sequences != 0) {
    throw ConfigError(fmt::format(
        "train.batch_sequences = {} is not a multiple of train.micro_batch_sequences = {}",
        config.train.batch_sequences, config.train.micro_batch_sequences));
  }
  // As AdamW has them: in float32.
  if (static_cast<float>(config.train.beta1) >= 1 || static_cast<float>(config.train.beta2) >= 1) {
    throw ConfigError("train.beta1 and train.beta2 must be below 1, in float32 too");
  }
  if (static_cast<float>(config.train.eps) < std::numeric_limits<float>::min()) {
    throw ConfigError(
        fmt::format("train.eps = {}: must be at least {:.3g}, or a gradient of zero gives weights "
                    "that are not numbers",
                    config.train.eps, std::numeric_limits<float>::min()));
  }
  validate(config.scheduler, config.metrics,
           config.model.sub_layers > 0 ? config.model.moe_layers() : 0);
  if (config.run.dir.empty()) {
    throw ConfigError("run.dir is empty");
  }
}

/// A field's value as TOML.
struct Format {
  std::string operator()(const std::int64_t* value) const { return fmt::format("{}", *value); }
  std::string operator()(const double* value) const {
    const std::string text = fmt::format("{}", *value);
    return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
  }
  std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
  std::string operator()(const std::string* value) const {
    std::ostringstream quoted;
    quoted << toml::value<std::string>(*value);
    return quoted.str();
  }
  std::string operator()(const std::vector<std::int64_t>* value) const {
    return fmt::format("[{}]", fmt::join(*value, ", "));
  }
  std::string operator()(const PerSubLayer* value) const {
    std::vector<std::string> texts;
    for (const double number : value->values) {
      texts.push_back((*this)(&number));
    }
    return texts.size() == 1 ? texts[0] : fmt::format("[{}]", fmt::join(texts, ", "));
  }
};

std::string format_toml(const Config& config, bool documented) {
  Config copy = config;
  std::string text;
  std::string section;
  for (const ConfigField& field : config_fields(copy)) {
    const std::string name = field.key.substr(0, field.key.find('.'));
    if (name != section) {
      text += fmt::format("{}[{}]\n", section.empty() ? "" : "\n", name);
      section = name;
    }
    const std::string setting = fmt::format("{} = {}", field.key.substr(name.size() + 1),
                                            std::visit(Format{}, field.target));
    text += documented ? fmt::format("{:<28} # {}", setting, field.description) : setting;
    if (documented && !field.choices.empty()) {
      text += fmt::format(" ({})", fmt::join(field.choices, ", "));
    }
    text += "\n";
  }
  return text;
}

}  // namespace

bool PerSubLayer::any() const {
  return std::ranges::any_of(values, [](double value) { return value > 0; });
}

Config parse_config(std::string_view text, std::string_view name,
                    std::span<const std::string> overrides) {
  Config config;
  std::vector<ConfigField> fields = config_fields(config);
  const std::string where(name);
  assign_tables(fields, where, parse_toml(text, where));
  for (const std::string& setting : overrides) {
    apply_override(fields, setting);
  }
  config.model.max_position_embeddings = config.train.sequence_length;
  config.model.router_bias = config.model.router_bias || config.train.balance_bias.any();
  validate_sizes(config);
  return config;
}

Config load_config(FileSystem& files, const Path& path, std::span<const std::string> overrides) {
  return parse_config(files.read(path), path.string(), overrides);
}

std::string to_toml(const Config& config) { return format_toml(config, /*documented=*/false); }

std::string to_documented_toml(const Config& config) {
  return format_toml(config, /*documented=*/true);
}

}  // namespace cartesian
