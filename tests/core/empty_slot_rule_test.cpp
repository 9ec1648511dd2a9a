// SPDX-License-Identifier: MIT
#include <nha/core/empty_slot_rule.hpp>

#include <gtest/gtest.h>

#include <type_traits>

namespace {

using nha::EmptySlotRule;
using nha::EmptySlots;

constexpr EmptySlotRule kAsTheyAre{EmptySlots::participate};
constexpr EmptySlotRule kMasked{EmptySlots::masked};
constexpr EmptySlotRule kMeans{EmptySlots::mass_corrected};

TEST(EmptySlotRule, ReadsSlotsAsTheyAreUnlessTold) {
  static_assert(EmptySlotRule{}.rule == EmptySlots::participate);
  static_assert(std::is_trivially_copyable_v<EmptySlotRule>);  // kernels take it by value
  EXPECT_TRUE(EmptySlotRule{}.slots_take_part(false));
}

TEST(EmptySlotRule, UnwrittenSlotsTakePartOnlyAsTheyAre) {
  EXPECT_TRUE(kAsTheyAre.slots_take_part(false));
  EXPECT_FALSE(kMasked.slots_take_part(false));
  EXPECT_FALSE(kMeans.slots_take_part(false));
  for (const EmptySlotRule rule : {kAsTheyAre, kMasked, kMeans})
    EXPECT_TRUE(rule.slots_take_part(true));
}

TEST(EmptySlotRule, OnlyMeansAreDividedByTheMass) {
  EXPECT_FALSE(kAsTheyAre.reads_means());
  EXPECT_FALSE(kMasked.reads_means());
  EXPECT_TRUE(kMeans.reads_means());
  for (const float mass : {0.0f, 0.25f, 3.0f}) {
    EXPECT_EQ(kAsTheyAre.divisor(mass), 1.0f);
    EXPECT_EQ(kMasked.divisor(mass), 1.0f);
    EXPECT_EQ(kMeans.divisor(mass), mass);
  }
  static_assert(std::is_same_v<decltype(kMeans.divisor(1.0)), double>);
  static_assert(kMeans.divisor(0.5) == 0.5 && kMasked.divisor(0.5) == 1.0);
}

}  // namespace
