// SPDX-License-Identifier: MIT
#include <nha/train/random.hpp>

#include "support/expect_error.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>

TEST(Random, MixesAsSplitMix64Does) {
  // The first number of the published generator from the state 1234567.
  EXPECT_EQ(nha::detail::mix_bits(1234567u + nha::detail::kGoldenStep), 6457827717110365317u);
}

TEST(Random, GivesTheSameBitsForever) {
  nha::Random random(7, nha::kRandomText, 5);
  EXPECT_EQ(random.bits(), 0x6bd701f5c36935e8u);
  EXPECT_EQ(random.bits(), 0x5f9fcaa0ed3a641du);
  EXPECT_EQ(random.bits(), 0x84144d86eeba98cbu);
  nha::Random digits(7, nha::kRandomText, 5);
  EXPECT_EQ(digits.below(10), 8);
  EXPECT_EQ(digits.below(10), 5);
}

TEST(Random, CopyGoesOnAsTheOriginal) {
  nha::Random random(1);
  random.bits();
  nha::Random copy = random;
  EXPECT_EQ(copy.bits(), random.bits());
  EXPECT_EQ(copy.normal(), random.normal());
}

TEST(Random, DiffersBySeedPurposeAndIndex) {
  std::set<std::uint64_t> first;
  for (std::uint64_t seed = 0; seed < 4; ++seed)
    for (std::uint64_t purpose = 0; purpose < 4; ++purpose)
      for (std::uint64_t index = 0; index < 4; ++index) {
        nha::Random random(seed, purpose, index);
        first.insert(random.bits());
        first.insert(random.bits());
      }
  EXPECT_EQ(first.size(), 128u);
}

TEST(Random, UniformFillsTheUnitInterval) {
  nha::Random random(3);
  constexpr int kDraws = 40000;
  double sum = 0, squares = 0, least = 1, most = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = random.uniform();
    sum += x;
    squares += x * x;
    least = std::min(least, x);
    most = std::max(most, x);
  }
  EXPECT_GE(least, 0);
  EXPECT_LT(most, 1);
  EXPECT_LT(least, 1e-3);
  EXPECT_GT(most, 1 - 1e-3);
  // Five standard errors of the mean, 1 / sqrt(12 n), and of the mean square, sqrt(4 / 45 n).
  EXPECT_NEAR(sum / kDraws, 0.5, 5 / std::sqrt(12.0 * kDraws));
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 5 * std::sqrt(4 / (45.0 * kDraws)));
}

TEST(Random, BelowTakesEachNumberEquallyOften) {
  nha::Random random(4);
  constexpr int kDraws = 30000;
  int count[3] = {};
  for (int i = 0; i < kDraws; ++i) {
    const nha::Index drawn = random.below(3);
    ASSERT_TRUE(drawn >= 0 && drawn < 3);
    ++count[drawn];
  }
  for (int n : count) EXPECT_NEAR(n, kDraws / 3, 5 * std::sqrt(kDraws * 2.0 / 9));
  EXPECT_EQ(random.below(1), 0);
}

TEST(Random, BelowHasNoBiasWhereTheRangeIsLarge) {
  // The remainder of 64 bits modulo 3 * 2^61 would fall into the first third with probability 3 /
  // 8, since 2^64 is two whole ranges and two thirds of one: here it must be 1 / 3.
  nha::Random random(5);
  constexpr nha::Index kRange = nha::Index{3} << 61;
  constexpr int kDraws = 20000;
  int low = 0;
  for (int i = 0; i < kDraws; ++i) low += random.below(kRange) < (nha::Index{1} << 61);
  EXPECT_NEAR(low, kDraws / 3.0, 5 * std::sqrt(kDraws * 2.0 / 9));
}

TEST(Random, NormalHasTheMomentsOfTheDistribution) {
  nha::Random random(6);
  constexpr int kDraws = 40000;
  double sum = 0, squares = 0, fourth = 0;
  int beyond_two = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = random.normal();
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
    beyond_two += std::fabs(x) > 2;
  }
  EXPECT_NEAR(sum / kDraws, 0, 5 / std::sqrt(1.0 * kDraws));
  EXPECT_NEAR(squares / kDraws, 1, 5 * std::sqrt(2.0 / kDraws));
  EXPECT_NEAR(fourth / kDraws, 3, 5 * std::sqrt(96.0 / kDraws));
  EXPECT_NEAR(beyond_two / (1.0 * kDraws), 0.0455, 5 * std::sqrt(0.0455 / kDraws));
}

TEST(Random, BelowRefusesAnEmptyRange) {
  nha::Random random(1);
  NHA_EXPECT_ERROR((void)random.below(0), nha::ArgumentError,
                   "n of below is 0; expected 1 or more");
}
