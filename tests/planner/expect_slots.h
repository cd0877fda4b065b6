#pragma once
// That no rank holds more experts of a layer, of both groups, than it has slots.

#include <gtest/gtest.h>

#include "base/index.h"
#include "base/placement.h"

namespace cartesian::test {

inline void expect_slots(const Placement& placement, int slots) {
  for (int layer = 0; layer < placement.shape().layers; ++layer) {
    for (int rank = 0; rank < placement.shape().ranks; ++rank) {
      std::size_t held = 0;
      for (int group = 0; group < placement.shape().groups; ++group) {
        held += placement.experts_on(layer, group, rank).size();
      }
      EXPECT_LE(held, as_index(slots));
    }
  }
}

}  // namespace cartesian::test
