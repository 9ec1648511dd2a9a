// SPDX-License-Identifier: MIT
#include <nha/core/dtype.hpp>

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <type_traits>

namespace {

using nha::bfloat16;
using nha::float16;

static_assert(sizeof(bfloat16) == 2 && std::is_trivially_copyable_v<bfloat16>);
static_assert(sizeof(float16) == 2 && std::is_trivially_copyable_v<float16>);
static_assert(static_cast<float>(float16(1.5f)) == 1.5f);  // constant expressions
static_assert(std::is_same_v<nha::accumulate_t<float16>, float>);
static_assert(std::is_same_v<nha::accumulate_t<bfloat16>, float>);
static_assert(std::is_same_v<nha::accumulate_t<double>, double>);
static_assert(nha::Scalar<bfloat16> && !nha::Scalar<int>);

template <class Half>
struct Format;
template <>
struct Format<bfloat16> {
  static constexpr int fraction_bits = 7;
  static constexpr int least_exponent = -126;  // of a normal number
  static constexpr int greatest_exponent = 127;
};
template <>
struct Format<float16> {
  static constexpr int fraction_bits = 10;
  static constexpr int least_exponent = -14;
  static constexpr int greatest_exponent = 15;
};

template <class Half>
Half from_bits(unsigned bits) {
  Half half;
  half.bits = static_cast<std::uint16_t>(bits);
  return half;
}

/// The value of a bit pattern, from the definition of the format.
template <class Half>
double decode(unsigned bits) {
  using F = Format<Half>;
  const int fraction = static_cast<int>(bits & ((1u << F::fraction_bits) - 1));
  const int exponent = static_cast<int>((bits & 0x7fffu) >> F::fraction_bits);
  const double sign = (bits & 0x8000u) != 0 ? -1.0 : 1.0;
  if (exponent == F::greatest_exponent - F::least_exponent + 2)
    return fraction != 0 ? std::nan("") : sign * INFINITY;
  const double significand = fraction + (exponent != 0 ? std::ldexp(1.0, F::fraction_bits) : 0.0);
  const int shift = (exponent != 0 ? exponent - 1 : 0) + F::least_exponent - F::fraction_bits;
  return sign * std::ldexp(significand, shift);
}

/// The bit pattern nearest to a value that is not NaN, ties to the even one, from the definition:
/// the value is counted in units in the last place, in double, where that is exact.
template <class Half>
unsigned encode(float value) {
  using F = Format<Half>;
  const unsigned sign = std::signbit(value) ? 0x8000u : 0u;
  const unsigned infinity = static_cast<unsigned>(F::greatest_exponent - F::least_exponent + 2)
                            << F::fraction_bits;
  const double magnitude = std::abs(static_cast<double>(value));
  if (std::isinf(magnitude)) return sign | infinity;
  int exponent = F::least_exponent;
  if (magnitude > 0) exponent = std::max(exponent, std::ilogb(magnitude));
  const double units = std::ldexp(magnitude, F::fraction_bits - exponent);
  double whole = std::floor(units);
  const double rest = units - whole;
  if (rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2.0) != 0.0)) whole += 1;
  // Patterns of one sign are in order, so a fraction that overflows carries into the exponent.
  const auto pattern =
      static_cast<unsigned>(exponent - F::least_exponent) * (1u << F::fraction_bits) +
      static_cast<unsigned>(whole);
  return sign | std::min(pattern, infinity);
}

template <class Half>
class HalfTypes : public testing::Test {};
using Halves = testing::Types<bfloat16, float16>;
TYPED_TEST_SUITE(HalfTypes, Halves);

TYPED_TEST(HalfTypes, EveryPatternHasItsValueAndComesBack) {
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const float value = static_cast<float>(from_bits<TypeParam>(bits));
    const double expected = decode<TypeParam>(bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(static_cast<float>(TypeParam(value)))) << bits;
    } else {
      ASSERT_EQ(static_cast<double>(value), expected) << bits;
      ASSERT_EQ(std::signbit(value), bits >= 0x8000u) << bits;
      ASSERT_EQ(TypeParam(value).bits, bits);
    }
  }
}

TYPED_TEST(HalfTypes, RoundsToNearestEvenAroundEveryPattern) {
  // Halfway to the next pattern, and one float to either side of it.
  for (unsigned bits = 0; bits < 65535; ++bits) {
    const double low = decode<TypeParam>(bits), high = decode<TypeParam>(bits + 1);
    if (!std::isfinite(low) || std::isnan(high)) continue;
    if (bits == 0x7fffu) continue;
    // Above the largest number the next would be twice the last power of two.
    const double next =
        std::isfinite(high)
            ? high
            : std::copysign(std::ldexp(1.0, Format<TypeParam>::greatest_exponent + 1), low);
    const double middle = (low + next) / 2;
    const auto nearest = static_cast<float>(middle);
    for (float value :
         {nearest, std::nextafterf(nearest, INFINITY), std::nextafterf(nearest, -INFINITY)})
      ASSERT_EQ(TypeParam(value).bits, encode<TypeParam>(value)) << bits << ' ' << value;
  }
}

TYPED_TEST(HalfTypes, RoundsRandomFloatsAsTheDefinition) {
  std::mt19937 random(7);
  for (int i = 0; i < 300000; ++i) {
    const float value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(static_cast<float>(TypeParam(value))));
    } else {
      ASSERT_EQ(TypeParam(value).bits, encode<TypeParam>(value)) << value;
    }
  }
}

TYPED_TEST(HalfTypes, ExtremesKeepTheirKind) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(static_cast<float>(TypeParam(infinity)), infinity);
  EXPECT_EQ(static_cast<float>(TypeParam(-infinity)), -infinity);
  EXPECT_EQ(static_cast<float>(TypeParam(std::numeric_limits<float>::max())), infinity);
  EXPECT_TRUE(std::signbit(static_cast<float>(TypeParam(-0.0f))));
  // NaN whose payload lies only in the bits that are dropped must not become an infinity.
  EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(std::bit_cast<float>(0xffffffffu)))));
}

TEST(Float16, KnownValues) {
  EXPECT_EQ(float16(65504.0f).bits, 0x7bffu);
  EXPECT_EQ(float16(65519.996f).bits, 0x7bffu);
  EXPECT_EQ(float16(65520.0f).bits, 0x7c00u);
  EXPECT_EQ(float16(0x1p-24f).bits, 0x0001u);
  EXPECT_EQ(float16(0x1p-25f).bits, 0x0000u);  // a tie, to even
  EXPECT_EQ(float16(0x1.8p-24f).bits, 0x0002u);
  EXPECT_EQ(float16(0x1.ffcp-15f).bits, 0x0400u);  // the largest subnormal and half a unit
}

TEST(BFloat16, KnownValues) {
  EXPECT_EQ(bfloat16(1.0f).bits, 0x3f80u);
  EXPECT_EQ(bfloat16(0x1.01p0f).bits, 0x3f80u);  // a tie, to even
  EXPECT_EQ(bfloat16(0x1.03p0f).bits, 0x3f82u);
  EXPECT_EQ(bfloat16(-2.5f).bits, 0xc020u);
}

}  // namespace
