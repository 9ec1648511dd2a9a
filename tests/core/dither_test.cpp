// SPDX-License-Identifier: MIT
#include <nha/core/dither.hpp>

#include <nha/core/numeric.hpp>

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

namespace {

using nha::bfloat16;
using nha::float16;
using nha::round_dithered;
using nha::widen;

template <class T>
class Dither : public testing::Test {
 protected:
  static T stored(unsigned bits) {
    T number;
    number.bits = static_cast<std::uint16_t>(bits);
    return number;
  }
};
using DitheredTypes = ::testing::Types<bfloat16, float16>;
TYPED_TEST_SUITE(Dither, DitheredTypes);

TYPED_TEST(Dither, KeepsWhatCanBeStored) {
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const TypeParam number = this->stored(bits);
    const float wide = widen(number);
    if (!std::isfinite(wide)) continue;
    for (const std::uint32_t dither : {0u, 0x12345678u, 0x80000000u, 0xffffffffu})
      ASSERT_EQ(round_dithered(wide, dither, TypeParam()), number) << bits << ' ' << dither;
  }
}

TYPED_TEST(Dither, GivesANeighbourAndUpAsOftenAsTheRestIsLong) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> fraction(0.0f, 1.0f);
  for (unsigned bits = 0x0801; bits < 0x7b00; bits += 97) {  // normal in both types
    const float below = widen(this->stored(bits)), above = widen(this->stored(bits + 1));
    const float rest = fraction(random);
    const float value = below + rest * (above - below);
    constexpr int kSteps = 1 << 10;
    double ups = 0;
    for (std::uint32_t i = 0; i < kSteps; ++i) {
      const float up = widen(round_dithered(value, i << 22, TypeParam()));
      const float down = widen(round_dithered(-value, i << 22, TypeParam()));
      ASSERT_TRUE(up == below || up == above) << value;
      ASSERT_EQ(down, -up);
      ups += up == above ? 1 : 0;
    }
    EXPECT_NEAR(ups / kSteps, (value - below) / (above - below), 2e-3) << value;
  }
}

TYPED_TEST(Dither, KeepsNotANumber) {
  for (const std::uint32_t bits : {0x7fc00000u, 0x7fffffffu, 0xffffffffu, 0x7f800001u})
    for (const std::uint32_t dither : {0u, 0x7fffffffu, 0xffffffffu})
      EXPECT_TRUE(
          std::isnan(widen(round_dithered(std::bit_cast<float>(bits), dither, TypeParam()))));
}

TEST(DitherBfloat16, KeepsInfinitiesAndSubnormals) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(widen(round_dithered(kInfinity, 0xffffffffu, bfloat16())), kInfinity);
  EXPECT_EQ(widen(round_dithered(-kInfinity, 0xffffffffu, bfloat16())), -kInfinity);
  EXPECT_EQ(round_dithered(std::bit_cast<float>(0x00018000u), 0, bfloat16()).bits, 1);
  EXPECT_EQ(round_dithered(std::bit_cast<float>(0x00018000u), 0x80000000u, bfloat16()).bits, 2);
}

TEST(DitherFloat16, StaysFiniteAndRoundsTheSmallestTowardsZero) {
  EXPECT_EQ(widen(round_dithered(65519.0f, 0, float16())), 65504.0f);
  EXPECT_EQ(widen(round_dithered(-1e30f, 0xffffffffu, float16())), -65504.0f);
  EXPECT_FALSE(std::isfinite(
      widen(round_dithered(std::numeric_limits<float>::infinity(), 0xffffffffu, float16()))));
  for (float value = 0x1p-15f; value > 1e-9f; value *= 0.97f)
    for (const std::uint32_t dither : {0u, 0xffffffffu}) {
      const float rounded = widen(round_dithered(value, dither, float16()));
      EXPECT_LE(rounded, value * 1.001f);
      EXPECT_GT(rounded, value - 0x1.01p-24f);
    }
}

// A running mean of tokens far smaller than half a unit of the stored mean reaches the tokens'
// mean, where rounding to nearest stops.
TYPED_TEST(Dither, RunningMeansDoNotStandStill) {
  constexpr float kKept = 0.9999f;
  TypeParam dithered(0.25f), nearest(0.25f);
  for (std::int64_t t = 0; t < 100'000; ++t) {
    dithered = nha::stored_sum<TypeParam>(kKept * widen(dithered) + (1 - kKept) * 1.5f,
                                          nha::dither(t, 3, 5));
    nearest = TypeParam(kKept * widen(nearest) + (1 - kKept) * 1.5f);
  }
  EXPECT_NEAR(widen(dithered), 1.5f, 0.02f);
  EXPECT_LT(widen(nearest), 1.35f);
}

TEST(DitherSequence, FillsTheIntervalEvenlyFromAnyPosition) {
  for (const std::int64_t start : {std::int64_t{0}, std::int64_t{1} << 40}) {
    constexpr int kBins = 64, kTokens = 6400;
    int bins[kBins] = {};
    for (int t = 0; t < kTokens; ++t) ++bins[nha::dither(start + t, 7, 2) >> 26];
    for (const int count : bins) EXPECT_NEAR(count, kTokens / kBins, 3);
  }
  EXPECT_EQ(nha::dither(9, 4, 3), nha::dither(9, 4, 3 + nha::kDitherPeriod));
  EXPECT_NE(nha::dither(9, 4, 3), nha::dither(9, 5, 3));
}

TEST(DitherSequence, SumsThatAreKeptWideAreNotRounded) {
  EXPECT_EQ(nha::stored_sum<float>(0.1f, 0xffffffffu), 0.1f);
  EXPECT_EQ(nha::stored_sum<double>(0.1, 0xffffffffu), 0.1);
}

}  // namespace
