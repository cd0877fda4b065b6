#include "runtime/bench/exchange_journey.h"

#include <fmt/format.h>

#include <vector>

#include "base/index.h"
#include "kernels/dispatch.h"
#include "runtime/bench/bench_rows.h"
#include "runtime/bench/exchange_sub_layer.h"
#include "runtime/bench/group_meter.h"
#include "runtime/model/chunks.h"

namespace cartesian {

namespace {

constexpr std::array kScopes{"intra", "inter"};

ExchangeOptions options_of(const ExchangeCase& measured) {
  return {.flow = measured.flow,
          .pivot = measured.rule == PivotRule::gate    ? PivotBy::gate
                   : measured.rule == PivotRule::table ? PivotBy::table
                                                       : PivotBy::speculative};
}

class ExchangeJourney final : public ExchangePath {
 public:
  ExchangeJourney(const ExchangeCase& measured, Transport& transport, Context& context)
      : measured_(measured),
        rank_(transport.rank()),
        context_(context),
        meter_(transport),
        exchange_(meter_, measured.topology, measured.placement, options_of(measured)),
        kept_(allocator_),
        activations_(allocator_),
        bench_{measured, context, exchange_, activations_},
        rows_(make_bench_rows(measured, rank_, kept_)),
        begin_(counted()) {
    for (int group = 0; group < measured.groups(); ++group) {
      experts_.emplace_back(measured.placement, measured.layer, group, rank_);
    }
    for (int chunk = 0; chunk < measured.chunks; ++chunk) {
      for (int group = 0; group < measured.groups(); ++group) {
        parts_.emplace_back(bench_, experts_[as_index(group)], group);
      }
    }
  }

  void forward(BenchSeconds& seconds) override {
    activations_.reset();
    meter_.restart();
    constexpr std::size_t kStages = ExchangeSubLayer::kStages;
    pipeline(kStages * experts_.size(), chunks(), [&](std::size_t stage, std::size_t c) {
      const std::size_t group = stage / kStages;
      if (stage == 0) {
        part(c, 0).begin(home_tokens(c), chunk_rows(rows_.x, c, chunks()), home(c));
      } else if (stage == kStages) {
        const ExchangeSubLayer& a = part(c, 0);
        part(c, 1).begin(a.plan().to_pivots ? pivot_tokens(a.plan()) : a.tokens(), a.output(),
                         home(c));
      }
      part(c, group).run(stage % kStages, seconds);
    });
  }

  void backward() override {
    constexpr std::size_t kStages = ExchangeSubLayer::kGradientStages;
    pipeline(kStages * experts_.size(), chunks(), [&](std::size_t stage, std::size_t c) {
      const std::size_t group = experts_.size() - 1 - stage / kStages;
      const bool first = group + 1 == experts_.size();
      const Tensor dout = stage % kStages != 0 ? Tensor()
                          : first              ? chunk_rows(rows_.dout, c, chunks())
                                               : part(c, group + 1).input_gradient();
      part(c, group).run_backward(stage % kStages, dout);
    });
  }

  std::vector<Tensor> outputs() const override {
    std::vector<Tensor> chunks;
    for (std::size_t i = experts_.size() - 1; i < parts_.size(); i += experts_.size()) {
      chunks.push_back(parts_[i].output());
    }
    return chunks;
  }
  std::vector<Tensor> input_gradients() const override {
    std::vector<Tensor> chunks;
    for (std::size_t i = 0; i < parts_.size(); i += experts_.size()) {
      chunks.push_back(parts_[i].input_gradient());
    }
    return chunks;
  }

  void for_each_gate_gradient(const GateVisit& visit) const override {
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const auto k = as_index(parts_[i].gate_gradients().cols());
      const auto gradients = parts_[i].gate_gradients().span<float>();
      for (std::size_t t = 0; t < parts_[i].tokens().size(); ++t) {
        visit(static_cast<int>(i % experts_.size()), parts_[i].tokens()[t].token,
              gradients.subspan(t * k, k));
      }
    }
  }

  std::span<const double> sent_by_group() const override { return meter_.bytes(); }
  SentTraffic traffic() const override {
    SentTraffic sent = counted();
    for (std::size_t scope = 0; scope < kScopes.size(); ++scope) {
      sent.rows.at(scope) -= begin_.rows.at(scope);
      sent.bytes.at(scope) -= begin_.bytes.at(scope);
    }
    return sent;
  }

 private:
  std::size_t chunks() const { return as_index(measured_.chunks); }
  ExchangeSubLayer& part(std::size_t chunk, std::size_t group) {
    return parts_[chunk * experts_.size() + group];
  }
  ExchangeSubLayer::Home home(std::size_t chunk) const {
    const std::int64_t first = chunk_bound(measured_.tokens, chunk, chunks());
    return {measured_.first_token(rank_) + first,
            chunk_bound(measured_.tokens, chunk + 1, chunks()) - first};
  }
  std::vector<SourceToken> home_tokens(std::size_t chunk) const {
    const auto [first, count] = home(chunk);
    std::vector<SourceToken> tokens;
    for (std::int64_t token = first; token < first + count; ++token) {
      tokens.push_back({static_cast<std::int32_t>(token), rank_, 0});
    }
    return tokens;
  }
  SentTraffic counted() const {
    SentTraffic sent;
    for (std::size_t scope = 0; scope < kScopes.size(); ++scope) {
      const auto value = [&](const char* name) {
        return context_.metrics
            .counter(fmt::format("cartesian_{}_total{{scope=\"{}\"}}", name, kScopes.at(scope)))
            .value();
      };
      sent.rows.at(scope) = value("exchange_rows");
      sent.bytes.at(scope) = value("transport_bytes");
    }
    return sent;
  }

  const ExchangeCase& measured_;
  int rank_;
  Context& context_;
  GroupMeter meter_;
  Exchange exchange_;
  HostAllocator allocator_;
  Arena kept_;
  Arena activations_;
  ExchangeBench bench_;
  BenchRows rows_;
  SentTraffic begin_;
  std::vector<StandInExperts> experts_;  // [groups]
  std::vector<ExchangeSubLayer> parts_;  // [chunks][groups]
};

}  // namespace

std::unique_ptr<ExchangePath> make_exchange_journey(const ExchangeCase& measured,
                                                    Transport& transport, Context& context) {
  return std::make_unique<ExchangeJourney>(measured, transport, context);
}

}  // namespace cartesian
