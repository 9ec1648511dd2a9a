// SPDX-License-Identifier: MIT
#include <nha/cpu/simd_half.hpp>

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>

#include "support/architectures.hpp"

namespace {

using nha::Index;
namespace simd = nha::cpu::simd;

template <class Arch>
class SimdHalf : public testing::Test {
 protected:
  using Float = nha::cpu::simd::vec<float, Arch>;
  static constexpr auto kLanes = static_cast<std::size_t>(nha::cpu::simd::lanes<float, Arch>);

  /// Any number but those NaN that store_narrow() does not take.
  float number() {
    auto bits = static_cast<std::uint32_t>(random_());
    if (random_() % 4 == 0) bits = (bits & 0x80ffffffu) | 0x38000000u;  // near 2^-14
    if (random_() % 64 == 0) bits |= 0x7f800000u;
    if (random_() % 64 == 0) bits &= 0x807fffffu;  // subnormal
    const auto value = std::bit_cast<float>(bits);
    return std::isnan(value) ? std::numeric_limits<float>::quiet_NaN() : value;
  }

  std::mt19937 random_{11};
};
TYPED_TEST_SUITE(SimdHalf, nha_test::Architectures);

TYPED_TEST(SimdHalf, StoresAsTheScalarRoundingDoes) {
  using V = typename TestFixture::Float;
  constexpr auto kCount = TestFixture::kLanes;
  const auto check = [&](auto half) {
    using Half = decltype(half);
    for (int round = 0; round < 100'000; ++round) {
      float numbers[kCount], stored[kCount];
      Half halves[kCount];
      for (float& x : numbers) x = this->number();
      const auto start = static_cast<std::uint32_t>(this->random_());
      const Index column = round % 5;
      nha::cpu::simd::store(stored, nha::cpu::simd::store_narrow(
                                        halves, nha::cpu::simd::load<V>(numbers),
                                        nha::cpu::simd::dithers_from<TypeParam>(start, column)));
      for (std::size_t i = 0; i < kCount; ++i) {
        const std::uint32_t dither = start + nha::dither(0, 0, column + static_cast<Index>(i));
        const Half expected = nha::round_dithered(numbers[i], dither, Half());
        if (std::isnan(nha::widen(expected))) {
          ASSERT_TRUE(std::isnan(nha::widen(halves[i])) && std::isnan(stored[i])) << numbers[i];
        } else {
          ASSERT_EQ(halves[i].bits, expected.bits) << numbers[i];
          ASSERT_EQ(stored[i], nha::widen(expected));
        }
      }
    }
  };
  check(nha::bfloat16());
  check(nha::float16());
}

TYPED_TEST(SimdHalf, SettledNumbersKeepEverythingButTheDigitsOfNaN) {
  using V = typename TestFixture::Float;
  constexpr auto kCount = TestFixture::kLanes;
  float in[kCount], out[kCount];
  for (const std::uint32_t bits :
       {0xffffffffu, 0x7fffffffu, 0x7f800000u, 0x80000000u, 0x3f800001u}) {
    for (float& x : in) x = std::bit_cast<float>(bits);
    nha::cpu::simd::store(out, nha::cpu::simd::settled(nha::cpu::simd::load<V>(in)));
    for (const float x : out)
      if (std::isnan(in[0])) {
        EXPECT_TRUE(std::isnan(x) && (std::bit_cast<std::uint32_t>(x) & 0xffffu) == 0);
      } else {
        EXPECT_EQ(std::bit_cast<std::uint32_t>(x), bits);
      }
  }
}

#if !defined(NHA_DETAIL_NO_VECTORS)
TYPED_TEST(SimdHalf, PairsAreSplitAndJoinedInOrder) {
  using V = typename TestFixture::Float;
  if constexpr (!nha::cpu::simd::Number<V>) {
    constexpr auto kCount = TestFixture::kLanes;
    float numbers[2 * kCount], first[kCount], second[kCount];
    for (std::size_t i = 0; i < 2 * kCount; ++i) numbers[i] = static_cast<float>(i);
    V a = nha::cpu::simd::load<V>(numbers), b = nha::cpu::simd::load<V>(numbers + kCount);
    nha::cpu::simd::split_pairs(a, b);
    nha::cpu::simd::store(first, a);
    nha::cpu::simd::store(second, b);
    for (std::size_t i = 0; i < kCount; ++i) {
      EXPECT_EQ(first[i], static_cast<float>(2 * i));
      EXPECT_EQ(second[i], static_cast<float>(2 * i + 1));
    }
    nha::cpu::simd::join_pairs(a, b);
    nha::cpu::simd::store(first, a);
    nha::cpu::simd::store(second, b);
    for (std::size_t i = 0; i < kCount; ++i) {
      EXPECT_EQ(first[i], static_cast<float>(i));
      EXPECT_EQ(second[i], static_cast<float>(i + kCount));
    }
  }
}
#endif

}  // namespace
