// The paper's systems have the paper's sizes: configs/paper against the counts recomputed from Su
// et al., arXiv 2410.16077, tables 1 and 2.

#include "runtime/model/parameter_count.h"

#include <gtest/gtest.h>

#include <string>

#include "runtime/config/config.h"
#include "runtime/model/language_model.h"
#include "tests/support/tiny_model.h"

namespace cartesian::test {
namespace {

/// Millions.
struct Row {
  std::string system;
  double total = 0;
  double activated = 0;
};

void PrintTo(const Row& row, std::ostream* out) { *out << row.system; }

ModelConfig model_of(const std::string& system) {
  const auto files = make_posix_file_system();
  return load_config(*files, Path(CARTESIAN_ROOT) / "configs" / "paper" / (system + ".toml"), {})
      .model;
}

class PaperSizes : public testing::TestWithParam<Row> {};

TEST_P(PaperSizes, AreThoseOfTheTable) {
  const Row& row = GetParam();
  const ModelConfig model = model_of(row.system);
  const ParameterCount count = count_parameters(model);
  EXPECT_NEAR(count.matrices() / 1e6, row.total, 0.005);
  EXPECT_NEAR(count.activated_matrices(static_cast<double>(model.moe_top_k)) / 1e6, row.activated,
              0.005);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, PaperSizes,
    testing::Values(Row{"base-dense", 162.40, 162.40}, Row{"base-smoe-share", 841.88, 247.33},
                    Row{"base-smoe-top3", 844.53, 257.95}, Row{"base-hash", 841.88, 247.33},
                    Row{"base-fine-grained", 841.88, 247.33}, Row{"base-topp", 841.88, 247.33},
                    Row{"base-cartesian", 841.88, 247.33},
                    Row{"base-cartesian-noshared", 799.41, 204.87},
                    Row{"large-dense", 468.19, 468.19}, Row{"large-smoe-share", 2884.11, 770.18},
                    Row{"large-smoe-top3", 2893.55, 807.93}, Row{"large-hash", 2884.11, 770.18},
                    Row{"large-fine-grained", 2884.11, 770.18}, Row{"large-topp", 2884.11, 770.18},
                    Row{"large-cartesian", 2884.11, 770.18},
                    Row{"large-cartesian-noshared", 2733.11, 619.18}));

TEST(ParameterCountTest, WithNormsRoutersAndMixes) {
  const ParameterCount base = count_parameters(model_of("base-cartesian"));
  EXPECT_NEAR(base.all() / 1e6, 842.07, 0.005);
  EXPECT_NEAR(base.activated(2) / 1e6, 247.52, 0.005);
  const ParameterCount large = count_parameters(model_of("large-cartesian"));
  EXPECT_NEAR(large.all() / 1e6, 2884.61, 0.005);
  EXPECT_NEAR(large.activated(2) / 1e6, 770.68, 0.005);
}

TEST(ParameterCountTest, IsWhatAModelAllocates) {
  for (const std::int64_t sub_layers : {0, 1, 2}) {
    for (const char* routing : {"top_k", "hash"}) {
      for (const bool shared : {true, false}) {
        const bool biased = shared && std::string_view(routing) == "top_k";
        ModelConfig config = tiny_model();
        config.num_hidden_layers = 3;
        config.sub_layers = sub_layers;
        config.routing = routing;
        config.use_residual = shared;
        config.router_bias = biased;
        ParameterStore store;
        const LanguageModel model(config, Placement::linear(placement_shape(config, 1), 1), 0,
                                  store);
        double elements = 0;
        for (const NamedTensor& tensor : store.tensors()) {
          elements += static_cast<double>(tensor.shape.numel());
        }
        EXPECT_EQ(count_parameters(config).all(), elements)
            << sub_layers << " sub-layers, " << routing << ", shared " << shared;
      }
    }
  }
}

}  // namespace
}  // namespace cartesian::test
