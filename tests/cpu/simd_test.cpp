// SPDX-License-Identifier: MIT
#include <nha/cpu/simd.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/architectures.hpp"

namespace {

using nha::Index;
namespace simd = nha::cpu::simd;

template <class Arch>
class Simd : public testing::Test {
 protected:
  using Float = nha::cpu::simd::vec<float, Arch>;
};
template <class V>
constexpr int kLanesOf = static_cast<int>(sizeof(V) / sizeof(float));
TYPED_TEST_SUITE(Simd, nha_test::Architectures);

TYPED_TEST(Simd, WidensEveryHalfNumberExactly) {
  using V = typename TestFixture::Float;
  constexpr int kLanes = kLanesOf<V>;
  const auto check = [&](auto half) {
    using Half = decltype(half);
    Half numbers[kLanes];
    float wide[kLanes];
    for (int first = 0; first < 65536; first += kLanes) {
      for (int i = 0; i < kLanes; ++i) numbers[i].bits = static_cast<std::uint16_t>(first + i);
      nha::cpu::simd::store(wide, nha::cpu::simd::load_wide<V>(numbers));
      for (int i = 0; i < kLanes; ++i) {
        const auto expected = static_cast<float>(numbers[i]);
        if (std::isnan(expected))
          ASSERT_TRUE(std::isnan(wide[i])) << first + i;
        else
          ASSERT_EQ(wide[i], expected) << first + i;
      }
    }
  };
  check(nha::bfloat16());
  check(nha::float16());
}

TYPED_TEST(Simd, SumsOfSeveralVectorsComeInOrder) {
  using V = typename TestFixture::Float;
  constexpr int kLanes = kLanesOf<V>;
  V rows[kLanes];
  float expected[kLanes] = {};
  for (int r = 0; r < kLanes; ++r) {
    float row[kLanes];
    for (int i = 0; i < kLanes; ++i) expected[r] += row[i] = static_cast<float>(100 * r + i);
    rows[r] = nha::cpu::simd::load<V>(row);
  }
  float sums[kLanes];
  nha::cpu::simd::store(sums, nha::cpu::simd::reduce_add_each(rows));
  for (int r = 0; r < kLanes; ++r) EXPECT_EQ(sums[r], expected[r]);
}

TYPED_TEST(Simd, SquareRootsAndQuotientsAreRoundedAsScalarOnes) {
  using V = typename TestFixture::Float;
  constexpr int kLanes = kLanesOf<V>;
  for (int first = 0; first < 1000; first += kLanes) {
    float numbers[kLanes], roots[kLanes], quotients[kLanes];
    for (int i = 0; i < kLanes; ++i) numbers[i] = static_cast<float>(first + i) * 1.7e-3f;
    nha::cpu::simd::store(roots, nha::cpu::simd::sqrt(nha::cpu::simd::load<V>(numbers)));
    nha::cpu::simd::store(quotients,
                          nha::cpu::simd::divide(nha::cpu::simd::load<V>(numbers), V(0.7f)));
    for (int i = 0; i < kLanes; ++i) {
      ASSERT_EQ(roots[i], std::sqrt(numbers[i])) << numbers[i];
      ASSERT_EQ(quotients[i], numbers[i] / 0.7f) << numbers[i];
    }
  }
}

TYPED_TEST(Simd, ReductionsSeeEveryLane) {
  using V = typename TestFixture::Float;
  constexpr int kLanes = kLanesOf<V>;
  for (int place = 0; place < kLanes; ++place) {
    float numbers[kLanes];
    for (int i = 0; i < kLanes; ++i) numbers[i] = i == place ? 5.0f : 1.0f;
    EXPECT_EQ(nha::cpu::simd::reduce_max(nha::cpu::simd::load<V>(numbers)), 5.0f);
    EXPECT_EQ(nha::cpu::simd::reduce_add(nha::cpu::simd::load<V>(numbers)),
              static_cast<float>(kLanes + 4));
  }
}

// Of the compiler's best architecture alone: a program has one scalar multiply_add.
TEST(SimdOfThisBuild, MultiplyAddRoundsAsTheScalarOne) {
  using V = nha::cpu::simd::vec<float, nha::cpu::simd::default_arch>;
  const float a = 1.0f + 0x1p-12f, c = -1.0f;  // a * a + c needs more digits than a * a keeps
  float out[kLanesOf<V>];
  nha::cpu::simd::store(out, nha::cpu::simd::fma(V(a), V(a), V(c)));
  for (float x : out) EXPECT_EQ(x, nha::multiply_add(a, a, c));
}

}  // namespace
