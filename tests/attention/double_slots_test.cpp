// SPDX-License-Identifier: MIT
#include <nha/attention/double_slots.hpp>

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace {

using nha::detail::DoubleSlots;

TEST(DoubleSlots, ATokenEntersOneSlot) {
  DoubleSlots slots(2, 3, 1);
  const std::array<float, 3> key{1, 2, 3};
  const float value = 5;
  slots.enter(1, 0.5, 4.0, key.data(), &value);
  slots.enter(1, 0.5, 2.0, key.data(), &value);
  EXPECT_EQ(slots.key.numbers, (std::vector<double>{0, 0, 0, 4, 8, 12}));
  EXPECT_EQ(slots.value.numbers, (std::vector<double>{0, 20}));
  EXPECT_EQ(slots.mass.numbers, (std::vector<double>{0, 4}));
  slots.scale(1, 0.25);
  EXPECT_EQ(slots.key.numbers, (std::vector<double>{0, 0, 0, 1, 2, 3}));
  EXPECT_EQ(*slots.mass.row(1), 1);
}

TEST(DoubleSlots, SumsKeepWhatFloatsWouldLose) {
  const std::array<float, 3> a{1e8f, 1, -1e8f};
  const std::array<double, 3> ones{1, 1, 1};
  EXPECT_EQ(nha::detail::dot_in_double(a.data(), ones.data(), 3), 1);
  double sum = 1e8;
  const nha::bfloat16 one(1.0f);
  nha::detail::add_in_double(0.5, &one, 1, &sum);
  EXPECT_EQ(sum, 1e8 + 0.5);
}

}  // namespace
