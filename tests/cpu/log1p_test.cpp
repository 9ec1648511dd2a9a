// SPDX-License-Identifier: MIT
#include <nha/cpu/log1p.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "support/architectures.hpp"

namespace {

template <class Arch>
class Log1p : public ::testing::Test {
 protected:
  template <class T>
  static T log1p(T x) {
    using V = nha::cpu::simd::vec<T, Arch>;
    T values[16];
    std::fill_n(values, 16, x);
    for (nha::Index i = 0; i < 16; i += nha::cpu::simd::lanes<T, Arch>)
      nha::cpu::simd::store(values + i,
                            nha::cpu::log1p_unit<T>(nha::cpu::simd::load<V>(values + i)));
    return values[15];
  }
  /// How many units in the last place of the exact logarithm the result is off.
  template <class T>
  static double ulps_off(T x) {
    const long double exact = std::log1p(static_cast<long double>(x));
    int exponent = 0;
    std::frexp(exact, &exponent);
    const long double unit = std::ldexp(1.0L, exponent - std::numeric_limits<T>::digits);
    return static_cast<double>(std::abs(static_cast<long double>(log1p(x)) - exact) / unit);
  }
};
TYPED_TEST_SUITE(Log1p, nha_test::Architectures);

TYPED_TEST(Log1p, IsWithinTwoUlp) {
  double worst_float = 0, worst_double = 0;
  for (double x = 0.000013; x <= 1; x += 0.0000137) {
    worst_float = std::max(worst_float, this->ulps_off(static_cast<float>(x)));
    worst_double = std::max(worst_double, this->ulps_off(x));
  }
  for (double x = 1; x > 1e-30; x *= 0.993) {
    worst_float = std::max(worst_float, this->ulps_off(static_cast<float>(x)));
    worst_double = std::max(worst_double, this->ulps_off(x));
  }
  EXPECT_LE(worst_float, 2.0);
  EXPECT_LE(worst_double, 2.0);
}

TYPED_TEST(Log1p, EndsOfTheRange) {
  EXPECT_EQ(this->log1p(0.0f), 0.0f);
  EXPECT_EQ(this->log1p(0.0), 0.0);
  EXPECT_FLOAT_EQ(this->log1p(1.0f), std::log(2.0f));
  EXPECT_DOUBLE_EQ(this->log1p(1.0), std::log(2.0));
  EXPECT_EQ(this->log1p(std::numeric_limits<float>::min()), std::numeric_limits<float>::min());
  EXPECT_TRUE(std::isnan(this->log1p(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
