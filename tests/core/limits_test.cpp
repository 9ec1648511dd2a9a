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

}  // namespace
