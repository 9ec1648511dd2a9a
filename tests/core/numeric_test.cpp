// SPDX-License-Identifier: MIT
#include <nha/core/numeric.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <type_traits>

namespace {

TEST(Numeric, MultiplyAddIsTheSumWithinItsRoundings) {
  EXPECT_EQ(nha::multiply_add(3.0f, 4.0f, -5.0f), 7.0f);
  // (1 + e)^2 - 1 - 2e is e^2 rounded once; rounded twice it is 0.
  const float e = 0x1p-13f;
  const float result = nha::multiply_add(1 + e, 1 + e, -1 - 2 * e);
  EXPECT_TRUE(result == e * e || result == 0.0f);
#if defined(__FMA__)
  EXPECT_EQ(result, e * e);
#endif
}

TEST(Numeric, WidenGoesToTheTypeOfSums) {
  static_assert(std::is_same_v<decltype(nha::widen(nha::float16(1.0f))), float>);
  static_assert(std::is_same_v<decltype(nha::widen(1.0)), double>);
  EXPECT_EQ(nha::widen(nha::bfloat16(-2.5f)), -2.5f);
}

TEST(Numeric, GatesTakeInfinityAndZero) {
  EXPECT_EQ(nha::retention(0.0f), 1.0f);
  EXPECT_EQ(nha::default_write(0.0f), 0.0f);
  EXPECT_EQ(nha::retention(-nha::kInfinity<double>), 0.0);
  EXPECT_EQ(nha::default_write(-nha::kInfinity<double>), 1.0);
}

TEST(Numeric, DefaultWriteKeepsItsDigitsNearZero) {
  // 1 - exp(g) = -g - g^2/2 - ...; computed as written it is 0 in float for these gates.
  EXPECT_FLOAT_EQ(nha::default_write(-1e-9f), 1e-9f);
  EXPECT_DOUBLE_EQ(nha::default_write(-1e-17), 1e-17);
}

}  // namespace
