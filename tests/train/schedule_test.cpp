// SPDX-License-Identifier: MIT
#include <nha/train/schedule.hpp>

#include "support/expect_error.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace {

constexpr nha::CosineSchedule kSchedule{
    .peak = 1, .warmup_steps = 4, .total_steps = 12, .floor = 0.1};

}  // namespace

TEST(CosineSchedule, RisesEvenlyToThePeak) {
  for (nha::Index step = 0; step <= 4; ++step)
    EXPECT_DOUBLE_EQ(kSchedule.learning_rate(step), 0.2 * static_cast<double>(step + 1));
}

TEST(CosineSchedule, FallsAlongHalfACosineToTheFloor) {
  EXPECT_NEAR(kSchedule.learning_rate(6), 0.1 + 0.9 * (1 + 0.70710678118654752) / 2, 1e-15);
  EXPECT_NEAR(kSchedule.learning_rate(8), 0.55, 1e-15);  // half way
  EXPECT_NEAR(kSchedule.learning_rate(10), 0.1 + 0.9 * (1 - 0.70710678118654752) / 2, 1e-15);
  for (nha::Index step = 5; step < 12; ++step)
    EXPECT_LT(kSchedule.learning_rate(step), kSchedule.learning_rate(step - 1));
  EXPECT_GT(kSchedule.learning_rate(11), 0.1);
  EXPECT_EQ(kSchedule.learning_rate(12), 0.1);
  EXPECT_EQ(kSchedule.learning_rate(1000), 0.1);
}

TEST(CosineSchedule, WithoutWarmupStartsAtThePeak) {
  const nha::CosineSchedule schedule{.peak = 3, .total_steps = 2};
  EXPECT_DOUBLE_EQ(schedule.learning_rate(0), 3);
  EXPECT_DOUBLE_EQ(schedule.learning_rate(1), 1.5);
  EXPECT_EQ(schedule.learning_rate(2), 0);
}

TEST(CosineSchedule, RefusesOptionsAndStepsOutOfRange) {
  const auto rate = [](nha::CosineSchedule schedule, nha::Index step) {
    (void)schedule.learning_rate(step);
  };
  NHA_EXPECT_ERROR(rate(kSchedule, -1), nha::ArgumentError, "step is -1; expected 0 or more");
  nha::CosineSchedule wrong = kSchedule;
  wrong.floor = 2;
  NHA_EXPECT_ERROR(rate(wrong, 0), nha::ArgumentError, "floor is 2; expected 0 to peak, 1");
  wrong = kSchedule;
  wrong.warmup_steps = 12;
  NHA_EXPECT_ERROR(rate(wrong, 0), nha::ArgumentError, "warmup_steps is 12");
  wrong = kSchedule;
  wrong.peak = std::numeric_limits<double>::infinity();
  NHA_EXPECT_ERROR(rate(wrong, 0), nha::ArgumentError, "peak is inf");
}
