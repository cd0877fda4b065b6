#include <gtest/gtest.h>

#include "base/placement.h"
#include "tests/fuzz/memory_files.h"
#include "tests/fuzz/mutator.h"

namespace cartesian {
namespace {

TEST(Fuzz, Placement) {
  const PlacementShape shape = {2, 2, 3, 4};
  const Path path = "placement.json";
  const std::vector<std::string> seeds = {
      Placement::linear(shape, 4).to_json(), Placement::linear(shape, 2).to_json(),
      Placement::local(shape, Topology::from_node_sizes(std::vector{1, 3}, 4)).to_json()};
  const std::vector<std::string> words = {"\"version\"", "\"layers\":", "\"replicas\"", "[0]",
                                          "[0,1,2,3]",   "[[[",         "]]]",          "0,"};
  fuzz(Mutator(seeds, words), [&](const std::string& input) {
    MemoryFiles files;
    files.set(path, input);
    const Placement placement = Placement::load(files, path, shape);
    files.set(path, placement.to_json());
    EXPECT_EQ(Placement::load(files, path, shape), placement);
  });
}

}  // namespace
}  // namespace cartesian
