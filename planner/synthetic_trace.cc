#include "planner/synthetic_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/random.h"

namespace cartesian {

namespace {

void check_spec(const SyntheticTraceSpec& spec) {
  const auto share = [](double value) { return value >= 0 && value <= 1; };
  if (spec.layers < 1 || spec.groups < 1 || spec.groups > 2 || spec.experts < 1 ||
      spec.experts > std::numeric_limits<std::int16_t>::max() || spec.tokens < 0 ||
      spec.choices < 1 || spec.choices > spec.experts || spec.cluster < 0 ||
      spec.cluster > spec.experts || !share(spec.strength) || !share(spec.skew) ||
      !share(spec.drift) || !share(spec.prediction)) {
    throw ConfigError(fmt::format(
        "a synthetic trace of {} layers, {} groups, {} experts in clusters of {}, {} choices and "
        "{} tokens cannot be",
        spec.layers, spec.groups, spec.experts, spec.cluster, spec.choices, spec.tokens));
  }
  const std::int64_t of_token = std::int64_t{spec.layers} * spec.groups * spec.choices;
  if (spec.tokens > kMostSyntheticChoices / of_token) {
    throw ConfigError(fmt::format(
        "a synthetic trace of {} tokens with {} choices each, in all layers, has more "
        "than {} choices: at most {} tokens fit",
        spec.tokens, of_token, kMostSyntheticChoices, kMostSyntheticChoices / of_token));
  }
  const auto size = [](std::int64_t value) {
    return value >= 1 && value <= std::numeric_limits<std::int32_t>::max();
  };
  if (!size(spec.hidden) || !size(spec.expert_width) || spec.tokens_per_step < 0 ||
      (spec.dtype != "float32" && spec.dtype != "bfloat16")) {
    throw ConfigError(fmt::format(
        "a synthetic trace of a model with hidden size {}, experts {} wide and rows of {}, with {} "
        "tokens a step, cannot be",
        spec.hidden, spec.expert_width, quote(spec.dtype), spec.tokens_per_step));
  }
}

int topics_of(const SyntheticTraceSpec& spec) {
  return spec.cluster > 0 ? std::max(1, spec.experts / spec.cluster) : 1;
}

void check_text(const SyntheticTraceSpec& spec) {
  if (spec.vocab_size == 0) {
    return;
  }
  if (spec.vocab_size < topics_of(spec) ||
      spec.vocab_size > std::numeric_limits<std::int32_t>::max() || spec.sequence_length < 1 ||
      spec.tokens % spec.sequence_length != 0) {
    throw ConfigError(fmt::format(
        "a synthetic text of {} topics, a vocabulary of {} and {} tokens in sequences of {} cannot "
        "be",
        topics_of(spec), spec.vocab_size, spec.tokens, spec.sequence_length));
  }
}

class Generator {
 public:
  Generator(const SyntheticTraceSpec& spec, std::uint64_t seed)
      : spec_(spec), topics_(topics_of(spec)), key_(random_key(seed, "synthetic trace")) {}

  RoutingTrace run() {
    RoutingTrace trace;
    trace.tokens = spec_.tokens;
    trace.experts = spec_.experts;
    trace.hidden = spec_.hidden;
    trace.expert_width = spec_.expert_width;
    trace.tokens_per_step = spec_.tokens_per_step;
    trace.dtype = spec_.dtype;
    trace.model = "synthetic";
    if (spec_.vocab_size > 0) {
      write_text(trace);
    }
    for (int layer = 0; layer < spec_.layers; ++layer) {
      if (spec_.vocab_size == 0) {
        topic_.resize(static_cast<std::size_t>(spec_.tokens));
        std::ranges::generate(topic_, [&] { return below(topics_); });
      }
      for (int group = 0; group < spec_.groups; ++group) {
        trace.sub_layers.push_back(sub_layer(layer, group));
      }
    }
    return trace;
  }

 private:
  double uniform() { return random_uniform(key_, next_++); }
  int below(int count) { return static_cast<int>(uniform() * count); }

  void write_text(RoutingTrace& trace) {
    trace.vocab_size = spec_.vocab_size;
    trace.sequence_length = spec_.sequence_length;
    int of_sequence = 0;
    for (std::int64_t token = 0; token < spec_.tokens; ++token) {
      if (token % spec_.sequence_length == 0) {
        of_sequence = below(topics_);
      }
      const int topic = uniform() < spec_.strength ? of_sequence : below(topics_);
      const auto ids = static_cast<int>((spec_.vocab_size - topic - 1) / topics_ + 1);  // of it
      topic_.push_back(topic);
      trace.token_ids.push_back(topic + topics_ * below(ids));
    }
  }

  RoutingTrace::SubLayer sub_layer(int layer, int group) {
    RoutingTrace::SubLayer made{.block = layer,
                                .group = group,
                                .choices = spec_.choices,
                                .ids = {},
                                .gates = {},
                                .speculative_ids = {}};
    for (std::int64_t token = 0; token < spec_.tokens; ++token) {
      const std::vector<std::int16_t> chosen = choose(token);
      for (int i = 0; i < spec_.choices; ++i) {
        const bool real = i < static_cast<int>(chosen.size());
        const std::int16_t id = real ? chosen[static_cast<std::size_t>(i)] : std::int16_t{-1};
        made.ids.push_back(id);
        made.gates.push_back(real ? 1.0F / static_cast<float>(i + 1) : 0);
        if (group == 1) {
          const bool right = uniform() < spec_.prediction || !real;
          made.speculative_ids.push_back(right ? id
                                               : static_cast<std::int16_t>(below(spec_.experts)));
        }
      }
    }
    return made;
  }

  std::vector<std::int16_t> choose(std::int64_t token) {
    const int count = spec_.ragged ? 1 + below(spec_.choices) : spec_.choices;
    std::vector<std::int16_t> chosen;
    while (static_cast<int>(chosen.size()) < count) {
      const bool any_left = static_cast<int>(chosen.size()) < members();  // of the topic
      const auto id = static_cast<std::int16_t>(draw(token, any_left));
      if (std::ranges::find(chosen, id) == chosen.end()) {
        chosen.push_back(id);
      }
    }
    return chosen;
  }

  int members() const { return std::max(1, spec_.experts / topics_); }

  int draw(std::int64_t token, bool in_topic) {
    const double u = uniform();
    const auto liked = static_cast<int>(spec_.experts * (u + spec_.skew * (u * u - u)));
    if (spec_.cluster == 0 || !in_topic || uniform() >= spec_.strength) {
      return liked;
    }
    const int member = liked % members();
    int topic = topic_[static_cast<std::size_t>(token)];
    // Members change over to the next topic one after the other, as the text goes on.
    const double time = static_cast<double>(token) / static_cast<double>(spec_.tokens);
    if (member < spec_.drift * time * spec_.experts / topics_) {
      topic = (topic + 1) % topics_;
    }
    return topic + topics_ * member;
  }

  const SyntheticTraceSpec& spec_;
  int topics_;
  std::uint64_t key_;
  std::uint64_t next_ = 0;
  std::vector<int> topic_;  // [tokens] in the layer that is made
};

}  // namespace

RoutingTrace make_synthetic_trace(const SyntheticTraceSpec& spec, std::uint64_t seed) {
  check_spec(spec);
  check_text(spec);
  return Generator(spec, seed).run();
}

}  // namespace cartesian
