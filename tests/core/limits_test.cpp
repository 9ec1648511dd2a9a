// SPDX-License-Identifier: MIT
#include <nha/core/limits.hpp>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"

namespace {

TEST(Limits, BytesBeyondAnyMemoryAreRefused) {
  nha::check_bytes("a thing", 1e12);
  NHA_EXPECT_ERROR(nha::check_bytes("a thing", 1e30), nha::ArgumentError,
                   "a thing of 1e+30 bytes does not fit in memory");
}

TEST(Limits, SizesOutOfRangeOrUnlikeTheTypeAreRefused) {
  nha::check_size("size", 0, 0);
  nha::check_size("size", nha::kLargestSize, 1);
  nha::check_size("size", 8, 1, 8);
  NHA_EXPECT_ERROR(nha::check_size("size", 0, 1), nha::ArgumentError,
                   "size is 0; expected 1 to 16777216");
  NHA_EXPECT_ERROR(nha::check_size("size", nha::kLargestSize + 1, 1), nha::ArgumentError,
                   "size is 16777217");
  NHA_EXPECT_ERROR(nha::check_size("size", 7, 1, 8), nha::ArgumentError,
                   "size is 7; the type says 8");
}

}  // namespace
