#include "comm/bootstrap.h"

#include "comm/collectives.h"

namespace cartesian {

namespace {

class TransportBootstrap final : public Bootstrap {
 public:
  explicit TransportBootstrap(Transport& transport) : transport_(transport) {}
  int rank() const override { return transport_.rank(); }
  int size() const override { return transport_.size(); }
  std::vector<std::string> all_gather(std::string_view mine, Seconds timeout) override {
    transport_.set_timeout(timeout);
    return cartesian::all_gather(transport_, mine, {"bootstrap"});
  }

 private:
  Transport& transport_;
};

}  // namespace

std::unique_ptr<Bootstrap> make_bootstrap(Transport& transport) {
  return std::make_unique<TransportBootstrap>(transport);
}

}  // namespace cartesian
