// SPDX-License-Identifier: MIT
// WindowChoice: a random window for each step of training, so that one set of weights works with
// many.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/train/random.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// Windows to choose from. A window that stands there twice is chosen twice as often.
struct WindowChoice {
  std::vector<Index> windows;
  std::uint64_t seed = 0;
  /// How many windows a step has: one for each layer, each chosen for itself, or one for all.
  Index layers = 1;

  /// The windows of a step, counted from 0, as ModelStateOptions::windows takes them: `layers`
  /// entries of the list. They depend on the seed and the step alone.
  /// @throws ArgumentError if there is nothing to choose from, a window or the step is negative, or
  ///   layers is less than 1.
  std::vector<Index> windows_at(Index step) const {
    check_argument(!windows.empty(), "windows is empty; expected one or more to choose from");
    for (const Index window : windows)
      check_argument(window >= 0, "a window is ", window, "; expected 0 or more");
    check_size("layers", layers, 1);
    check_argument(step >= 0, "step is ", step, "; expected 0 or more");
    Random random(seed, kRandomWindows, static_cast<std::uint64_t>(step));
    std::vector<Index> chosen(static_cast<std::size_t>(layers));
    for (Index& window : chosen)
      window = windows[static_cast<std::size_t>(random.below(static_cast<Index>(windows.size())))];
    return chosen;
  }
};

NHA_ISA_NAMESPACE_END
