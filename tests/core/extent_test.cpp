// SPDX-License-Identifier: MIT
#include <nha/core/extent.hpp>

#include <gtest/gtest.h>

#include <type_traits>

namespace {

static_assert(std::is_empty_v<nha::Extent<64>>);
static_assert(nha::Extent<64>() == 64);

TEST(Extent, StaticIsItsConstantAndDynamicItsNumber) {
  EXPECT_EQ(nha::Extent<8>(8), 8);
  EXPECT_EQ(nha::Extent<nha::Dynamic>(11), 11);
  EXPECT_EQ(nha::Extent<nha::Dynamic>(), 0);
}

}  // namespace
