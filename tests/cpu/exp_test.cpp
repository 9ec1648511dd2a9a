// SPDX-License-Identifier: MIT
#include <nha/cpu/exp.hpp>

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "support/architectures.hpp"

namespace {

using nha::Index;

/// How many units in the last place of the exact result lie between it and `value`; Exact is a
/// wider type than T.
template <class T, class Exact>
double ulps(T value, Exact exact) {
  int exponent = 0;
  std::frexp(exact, &exponent);
  const Exact unit = std::ldexp(Exact{1}, exponent - std::numeric_limits<T>::digits);
  return static_cast<double>(std::abs(static_cast<Exact>(value) - exact) / unit);
}

template <class Arch>
class Exp : public ::testing::Test {
 protected:
  template <class T>
  static T exp(T x) {
    T values[16];
    std::fill_n(values, 16, x);
    simd_exp(values);
    return values[0];
  }
  /// exp of 16 numbers, in place.
  template <class T>
  static void simd_exp(T* values) {
    using V = nha::cpu::simd::vec<T, Arch>;
    for (Index i = 0; i < 16; i += nha::cpu::simd::lanes<T, Arch>)
      nha::cpu::simd::store(values + i,
                            nha::cpu::exp_nonpositive<T>(nha::cpu::simd::load<V>(values + i)));
  }
  template <class T>
  static void both(const T* x, T* exp, T* complement) {
    using V = nha::cpu::simd::vec<T, Arch>;
    for (Index i = 0; i < 16; i += nha::cpu::simd::lanes<T, Arch>) {
      V e, c;
      nha::cpu::exp_and_complement<T>(nha::cpu::simd::load<V>(x + i), e, c);
      nha::cpu::simd::store(exp + i, e);
      nha::cpu::simd::store(complement + i, c);
    }
  }
};
TYPED_TEST_SUITE(Exp, nha_test::Architectures);

// Every float from the least normal result to the last before exp(x) rounds to 1 in a release
// build; of them every kEvery-th in slower ones.
#if defined(NDEBUG) && defined(__OPTIMIZE__)
constexpr std::uint32_t kEvery = 1;
#else
constexpr std::uint32_t kEvery = 997;
#endif

TYPED_TEST(Exp, FloatsAreWithinTwoUlpEverywhere) {
  const auto first = std::bit_cast<std::uint32_t>(-1e-8f);
  const auto last = std::bit_cast<std::uint32_t>(-87.3365f);
  // One architecture in full, the others in samples: they run the same operations.
  const std::uint32_t stride =
      std::is_same_v<TypeParam, nha::cpu::simd::default_arch> ? kEvery : 997;
  double worst = 0, worst_complement = 0;
  float x[16], e[16], c[16];
  for (std::uint32_t bits = first; bits <= last; bits += 16 * stride) {
    for (std::uint32_t i = 0; i < 16; ++i)
      x[i] = std::bit_cast<float>(std::min(bits + i * stride, last));
    this->both(x, e, c);
    for (int i = 0; i < 16; ++i) {
      // Doubles are exact enough to judge floats.
      const double exact = std::exp(static_cast<double>(x[i]));
      const double difference = std::expm1(static_cast<double>(x[i]));
      worst = std::max(worst, ulps(e[i], exact));
      worst_complement = std::max(worst_complement, ulps(c[i], -difference));
    }
  }
  EXPECT_LE(worst, 2.0);
  EXPECT_LE(worst_complement, 2.0);
}

TYPED_TEST(Exp, DoublesAreWithinTwoUlp) {
  double worst = 0;
  for (double x = -708.39; x < 0; x += 0.01237)
    worst = std::max(worst, ulps(this->exp(x), std::exp(static_cast<long double>(x))));
  for (double x = -1e-18; x > -1; x *= 1.3)
    worst = std::max(worst, ulps(this->exp(x), std::exp(static_cast<long double>(x))));
  EXPECT_LE(worst, 2.0);
}

TYPED_TEST(Exp, DoubleComplementKeepsDigitsNearZero) {
  for (double x = -1e-300; x > -700; x *= 3) {
    double in[16], e[16], c[16];
    std::fill_n(in, 16, x);
    this->both(in, e, c);
    EXPECT_LE(ulps(c[0], -std::expm1(static_cast<long double>(x))), 2.0) << x;
  }
}

TYPED_TEST(Exp, EndsOfTheRange) {
  const auto check = [&](auto zero) {
    using T = decltype(zero);
    EXPECT_EQ(this->exp(zero), T{1});
    EXPECT_EQ(this->exp(-zero), T{1});
    EXPECT_EQ(this->exp(-std::numeric_limits<T>::infinity()), T{0});
    EXPECT_EQ(this->exp(std::numeric_limits<T>::lowest()), T{0});
    EXPECT_EQ(this->exp(T{-800}), T{0});
    EXPECT_TRUE(std::isnan(this->exp(std::numeric_limits<T>::quiet_NaN())));
    T x[16], e[16], c[16];
    std::fill_n(x, 16, -std::numeric_limits<T>::infinity());
    x[0] = zero;
    this->both(x, e, c);
    EXPECT_EQ(c[0], T{0});
    EXPECT_EQ(e[15], T{0});
    EXPECT_EQ(c[15], T{1});
  };
  check(0.0f);
  check(0.0);
}

}  // namespace
