// SPDX-License-Identifier: MIT
#include <nha/train/slot_share_loss.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "support/expect_error.hpp"

namespace {

/// The loss of one query as a function of the two log-sum-exps.
double loss_of(double lse_slots, double lse_window, double target) {
  const double share = 1 / (1 + std::exp(lse_window - lse_slots));
  return -target * std::log(share) - (1 - target) * std::log(1 - share);
}

struct SlotShareResult {
  double loss = 0, d_lse_slots = 0, d_lse_window = 0;
};
/// What slot_share_loss() says of the two log-sum-exps, by the chain rule through lse and share.
SlotShareResult result_of(double lse_slots, double lse_window, const nha::SlotShareLoss& options) {
  const double share = 1 / (1 + std::exp(lse_window - lse_slots));
  double d_lse = 0, d_share = 0;
  SlotShareResult result;
  result.loss = nha::slot_share_loss(options, &share, 1, 1.0, &d_lse, &d_share);
  result.d_lse_slots = d_lse * share + d_share * share * (1 - share);
  result.d_lse_window = d_lse * (1 - share) - d_share * share * (1 - share);
  return result;
}

TEST(SlotShareLoss, IsBinaryCrossEntropyWithItsDerivatives) {
  const double step = 1e-6;
  for (const double target : {0.0, 0.3, 1.0}) {
    const auto found =
        result_of(0.4, -0.9, {.coefficient = 1, .target = target, .through_window = true});
    EXPECT_NEAR(found.loss, loss_of(0.4, -0.9, target), 1e-12);
    EXPECT_NEAR(
        found.d_lse_slots,
        (loss_of(0.4 + step, -0.9, target) - loss_of(0.4 - step, -0.9, target)) / (2 * step), 1e-9);
    EXPECT_NEAR(
        found.d_lse_window,
        (loss_of(0.4, -0.9 + step, target) - loss_of(0.4, -0.9 - step, target)) / (2 * step), 1e-9);
  }
}
TEST(SlotShareLoss, LeavesTheWindowAloneAsPublished) {
  const auto through = result_of(0.4, -0.9, {.coefficient = 1, .through_window = true});
  const auto found = result_of(0.4, -0.9, {.coefficient = 1});
  EXPECT_NEAR(found.d_lse_slots, through.d_lse_slots, 1e-12);
  EXPECT_NEAR(found.d_lse_window, 0, 1e-15);
  EXPECT_LT(found.d_lse_slots, -0.1);
}
TEST(SlotShareLoss, HasNothingToPullAtWhereTheSlotsAreEmpty) {
  const std::array<float, 1> share{0};
  float d_lse = 9, d_share = 9;
  EXPECT_EQ(nha::slot_share_loss({.coefficient = 1}, share.data(), 1, 1.0, &d_lse, &d_share), 0);
  EXPECT_EQ(d_lse, 0);
  EXPECT_EQ(d_share, 0);
}
TEST(SlotShareLoss, StaysFiniteAtTheEnds) {
  for (const float share : {std::numeric_limits<float>::min(), 1.0f})
    for (const double target : {0.0, 1.0})
      for (const bool through : {false, true}) {
        float d_lse = 0, d_share = 0;
        const double loss =
            nha::slot_share_loss({.coefficient = 1, .target = target, .through_window = through},
                                 &share, 1, 1.0, &d_lse, &d_share);
        EXPECT_TRUE(std::isfinite(loss));
        EXPECT_LE(std::abs(d_share), 1.1e6f);
        EXPECT_LE(std::abs(d_lse), 1.1f);
      }
}
TEST(SlotShareLoss, RefusesOptionsOutOfRange) {
  NHA_EXPECT_ERROR(nha::validate(nha::SlotShareLoss{.coefficient = -1}), nha::ArgumentError,
                   "coefficient of the slot share loss is -1");
  NHA_EXPECT_ERROR(nha::validate(nha::SlotShareLoss{.target = 1.5}), nha::ArgumentError,
                   "target of the slot share loss is 1.5");
}

}  // namespace
