// SPDX-License-Identifier: MIT
#include <nha/train/window_choice.hpp>

#include "support/expect_error.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

TEST(WindowChoice, ChoosesEachWindowEquallyOften) {
  const nha::WindowChoice choice{.windows = {0, 4, 64}, .seed = 3};
  std::map<nha::Index, int> count;
  constexpr int kSteps = 6000;
  for (nha::Index step = 0; step < kSteps; ++step) {
    const auto windows = choice.windows_at(step);
    ASSERT_EQ(windows.size(), 1u);
    ++count[windows[0]];
  }
  ASSERT_EQ(count.size(), 3u);
  for (const nha::Index window : choice.windows)
    EXPECT_NEAR(count[window], kSteps / 3, 5 * std::sqrt(kSteps * 2.0 / 9));
}

TEST(WindowChoice, DependsOnTheSeedAndTheStepAlone) {
  const nha::WindowChoice choice{.windows = {1, 2, 3, 4, 5, 6, 7, 8}, .seed = 3, .layers = 20};
  const nha::WindowChoice same = choice;
  nha::WindowChoice other = choice;
  other.seed = 4;
  const auto first = choice.windows_at(7);
  (void)choice.windows_at(8);
  EXPECT_EQ(choice.windows_at(7), first);
  EXPECT_EQ(same.windows_at(7), first);
  EXPECT_NE(other.windows_at(7), first);
  EXPECT_NE(choice.windows_at(8), first);
}

TEST(WindowChoice, LayersChooseForThemselves) {
  const nha::WindowChoice choice{.windows = {16, 32}, .layers = 2};
  int unlike = 0;
  constexpr int kSteps = 2000;
  for (nha::Index step = 0; step < kSteps; ++step) {
    const auto windows = choice.windows_at(step);
    ASSERT_EQ(windows.size(), 2u);
    unlike += windows[0] != windows[1];
  }
  EXPECT_NEAR(unlike, kSteps / 2, 5 * std::sqrt(kSteps / 4.0));
}

TEST(WindowChoice, RefusesWhatCannotBeChosenFrom) {
  const auto choose = [](const nha::WindowChoice& choice, nha::Index step) {
    (void)choice.windows_at(step);
  };
  NHA_EXPECT_ERROR(choose({.windows = {}}, 0), nha::ArgumentError, "windows is empty");
  NHA_EXPECT_ERROR(choose({.windows = {4, -1}}, 0), nha::ArgumentError,
                   "a window is -1; expected 0 or more");
  NHA_EXPECT_ERROR(choose({.windows = {4}, .layers = 0}, 0), nha::ArgumentError, "layers is 0");
  NHA_EXPECT_ERROR(choose({.windows = {4}}, -1), nha::ArgumentError, "step is -1");
}
