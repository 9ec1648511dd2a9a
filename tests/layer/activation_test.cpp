// SPDX-License-Identifier: MIT
#include <nha/layer/activation.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace {

template <class T>
class Activation : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Activation, Types);

double exact_silu(double x) {
  return x / (1 + std::exp(-x));
}

TYPED_TEST(Activation, SiluIsExactAtEveryLengthAndSize) {
  // Lengths around the vector width end in every possible tail.
  for (nha::Index count = 0; count < 40; ++count) {
    std::vector<TypeParam> values;
    for (nha::Index i = 0; i < count; ++i)
      values.push_back(static_cast<TypeParam>(static_cast<double>(i - 20) * 1.37));
    const std::vector<TypeParam> x = values;
    nha::silu(values.data(), count);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double expected = exact_silu(static_cast<double>(x[i]));
      EXPECT_NEAR(
          static_cast<double>(values[i]), expected,
          8 * static_cast<double>(std::numeric_limits<TypeParam>::epsilon()) * std::abs(expected));
    }
  }
}

TYPED_TEST(Activation, SiluOfLargeNumbersIsTheNumberOrZero) {
  std::vector<TypeParam> values = {1000, -1000, TypeParam(1e30), TypeParam(-1e30), 0};
  nha::silu(values.data(), 5);
  EXPECT_EQ(values[0], TypeParam(1000));
  EXPECT_EQ(values[1], TypeParam(0));
  EXPECT_EQ(values[2], TypeParam(1e30));
  EXPECT_EQ(values[3], TypeParam(0));
  EXPECT_EQ(values[4], TypeParam(0));
}

TYPED_TEST(Activation, SiluTimesMultiplies) {
  std::vector<TypeParam> values, factors;
  for (int i = 0; i < 37; ++i) {
    values.push_back(static_cast<TypeParam>(i - 18) / 5);
    factors.push_back(static_cast<TypeParam>(3 - i));
  }
  std::vector<TypeParam> expected = values;
  nha::silu(expected.data(), 37);
  nha::silu_times(values.data(), factors.data(), 37);
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], expected[i] * factors[i]);
}

}  // namespace
