// SPDX-License-Identifier: MIT
#include <nha/cpu/log.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "support/architectures.hpp"

namespace {

using nha::Index;

template <class Arch>
class LogPositive : public ::testing::Test {
 protected:
  /// log of 16 numbers, in place.
  template <class T>
  static void simd_log(T* values) {
    using V = nha::cpu::simd::vec<T, Arch>;
    for (Index i = 0; i < 16; i += nha::cpu::simd::lanes<T, Arch>)
      nha::cpu::simd::store(values + i,
                            nha::cpu::log_positive<T>(nha::cpu::simd::load<V>(values + i)));
  }
  template <class T>
  static T log(T x) {
    T values[16];
    std::fill_n(values, 16, x);
    simd_log(values);
    return values[15];
  }
  /// The most units in the last place between 16 logarithms and the exact ones, taken in Exact.
  template <class Exact, class T>
  static double worst_ulps(const T* x) {
    T log[16];
    std::copy_n(x, 16, log);
    simd_log(log);
    double worst = 0;
    for (int i = 0; i < 16; ++i) {
      const Exact exact = std::log(static_cast<Exact>(x[i]));
      int exponent = 0;
      std::frexp(exact, &exponent);
      const Exact unit = std::ldexp(Exact{1}, exponent - std::numeric_limits<T>::digits);
      worst = std::max(worst, static_cast<double>(std::abs(static_cast<Exact>(log[i]) - exact) /
                                                  (exact == 0 ? Exact{1} : unit)));
    }
    return worst;
  }
};
TYPED_TEST_SUITE(LogPositive, nha_test::Architectures);

TYPED_TEST(LogPositive, FloatsAreWithinTwoUlpOverTheWholeRange) {
  const auto first = std::bit_cast<std::uint32_t>(std::numeric_limits<float>::min());
  const auto last = std::bit_cast<std::uint32_t>(std::numeric_limits<float>::max());
  double worst = 0;
  float x[16];
  // A stride that meets all last digits.
  for (std::uint32_t bits = first; bits < last; bits += 16 * 251) {
    for (std::uint32_t i = 0; i < 16; ++i)
      x[i] = std::bit_cast<float>(std::min(bits + i * 251, last));
    worst = std::max(worst, this->template worst_ulps<double>(x));
  }
  EXPECT_LE(worst, 2.0);
}

TYPED_TEST(LogPositive, DoublesAreWithinTwoUlpOverTheWholeRange) {
  const auto first = std::bit_cast<std::uint64_t>(std::numeric_limits<double>::min());
  const auto last = std::bit_cast<std::uint64_t>(std::numeric_limits<double>::max());
  const std::uint64_t stride = (last - first) / 300001;
  double worst = 0, x[16];
  for (std::uint64_t bits = first; bits < last - 16 * stride; bits += 16 * stride) {
    for (std::uint64_t i = 0; i < 16; ++i) x[i] = std::bit_cast<double>(bits + i * stride);
    worst = std::max(worst, this->template worst_ulps<long double>(x));
  }
  EXPECT_LE(worst, 2.0);
}

TYPED_TEST(LogPositive, KeepsItsDigitsNearOneAndWhereTheExponentChanges) {
  double worst_float = 0, worst_double = 0;
  for (const double center : {0.5, std::sqrt(0.5), 1.0, std::sqrt(2.0), 2.0, 1024.0})
    for (double step = 1e-16; step < 0.4; step *= 1.7) {
      double x[16];
      float f[16];
      for (int i = 0; i < 16; ++i) {
        x[i] = center * (1 + (i - 8) * step / 8);
        f[i] = static_cast<float>(x[i]);
      }
      worst_double = std::max(worst_double, this->template worst_ulps<long double>(x));
      worst_float = std::max(worst_float, this->template worst_ulps<double>(f));
    }
  EXPECT_LE(worst_float, 2.0);
  EXPECT_LE(worst_double, 2.0);
}

TYPED_TEST(LogPositive, EndsOfTheRange) {
  const auto check = [&](auto one) {
    using T = decltype(one);
    using Limits = std::numeric_limits<T>;
    EXPECT_EQ(this->log(one), T{0});
    EXPECT_EQ(this->log(Limits::infinity()), Limits::infinity());
    EXPECT_TRUE(std::isnan(this->log(Limits::quiet_NaN())));
    EXPECT_TRUE(std::isnan(this->log(-Limits::quiet_NaN())));
    EXPECT_LE(std::abs(this->log(Limits::max()) - std::log(Limits::max())),
              std::log(Limits::max()) * Limits::epsilon());
    EXPECT_LE(std::abs(this->log(Limits::min()) - std::log(Limits::min())),
              -std::log(Limits::min()) * Limits::epsilon());
  };
  check(1.0f);
  check(1.0);
}

}  // namespace
