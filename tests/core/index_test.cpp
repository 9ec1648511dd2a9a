// SPDX-License-Identifier: MIT
#include <nha/core/index.hpp>

#include <gtest/gtest.h>

namespace {

TEST(Index, PaddedRoundsUp) {
  EXPECT_EQ(nha::padded(0), 0);
  EXPECT_EQ(nha::padded(1), 16);
  EXPECT_EQ(nha::padded(16), 16);
  EXPECT_EQ(nha::padded(17), 32);
}

TEST(Index, IsPaddedKnowsWhatPaddedGives) {
  for (nha::Index count = 0; count < 100; ++count)
    EXPECT_EQ(nha::is_padded(count), count == nha::padded(count)) << count;
  EXPECT_FALSE(nha::is_padded(-16));
}

}  // namespace
