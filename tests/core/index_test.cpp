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

}  // namespace
