#include "runtime/bench/alltoallv_journey.h"

#include <vector>

#include "base/index.h"
#include "runtime/bench/alltoallv_sub_layer.h"
#include "runtime/bench/bench_rows.h"

namespace cartesian {

namespace {

class AlltoallvJourney final : public ExchangePath {
 public:
  AlltoallvJourney(const ExchangeCase& measured, int rank, MpiAlltoallv& mpi, Context& context)
      : measured_(measured),
        rank_(rank),
        kept_(allocator_),
        activations_(allocator_),
        rows_(make_bench_rows(measured, rank, kept_)) {
    for (int group = 0; group < measured.groups(); ++group) {
      parts_.emplace_back(
          AlltoallvSubLayer::Bench{measured, rank, mpi, context, activations_, sent_}, group);
    }
  }

  void forward(BenchSeconds& seconds) override {
    activations_.reset();
    output_ = rows_.x;
    for (AlltoallvSubLayer& part : parts_) {
      output_ = part.forward(output_, seconds);
    }
  }

  void backward() override {
    dinput_ = rows_.dout;
    for (std::size_t group = parts_.size(); group-- > 0;) {
      dinput_ = parts_[group].backward(dinput_);
    }
  }

  std::vector<Tensor> outputs() const override { return {output_}; }
  std::vector<Tensor> input_gradients() const override { return {dinput_}; }

  void for_each_gate_gradient(const GateVisit& visit) const override {
    for (std::size_t group = 0; group < parts_.size(); ++group) {
      const Tensor& gradients = parts_[group].gate_gradients();
      const auto k = as_index(gradients.cols());
      for (std::int64_t t = 0; t < measured_.tokens; ++t) {
        visit(static_cast<int>(group), measured_.first_token(rank_) + t,
              gradients.span<float>().subspan(as_index(t) * k, k));
      }
    }
  }

  SentTraffic traffic() const override { return sent_; }

 private:
  const ExchangeCase& measured_;
  int rank_;
  HostAllocator allocator_;
  Arena kept_;
  Arena activations_;  // of one step
  BenchRows rows_;
  SentTraffic sent_;
  std::vector<AlltoallvSubLayer> parts_;  // [groups]
  Tensor output_, dinput_;
};

}  // namespace

std::unique_ptr<ExchangePath> make_alltoallv_journey(const ExchangeCase& measured, int rank,
                                                     MpiAlltoallv& mpi, Context& context) {
  return std::make_unique<AlltoallvJourney>(measured, rank, mpi, context);
}

}  // namespace cartesian
