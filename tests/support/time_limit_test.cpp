// SPDX-License-Identifier: MIT
#include "support/time_limit.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace {

TEST(TimeLimitDeathTest, EndsAProgramThatTakesLonger) {
  EXPECT_DEATH(
      {
        const nha_test::TimeLimit limit(std::chrono::milliseconds(20));
        std::this_thread::sleep_for(std::chrono::seconds(30));
      },
      "longer than its time limit");
}

TEST(TimeLimit, LeavesAProgramThatIsInTimeAlone) {
  for (int round = 0; round < 3; ++round) const nha_test::TimeLimit limit(std::chrono::minutes(1));
}

}  // namespace
