// SPDX-License-Identifier: MIT
// The learning rate of each step: a linear rise, then half a cosine down.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>

#include <cmath>

NHA_NAMESPACE_BEGIN

/// Rises evenly over the first warmup_steps steps and is at `peak` in the step after them. It then
/// falls along half a cosine (Loshchilov and Hutter, 2017, without restarts). After total_steps
/// steps it is at `floor`, where it stays.
struct CosineSchedule {
  double peak = 1e-3;
  Index warmup_steps = 0;
  /// All steps, those of the rise among them.
  Index total_steps = 1;
  double floor = 0;

  /// The rate of a step, counted from 0. It depends on nothing else, so that a run can be resumed
  /// anywhere. Not 0 during the rise: step 0 has peak / (warmup_steps + 1).
  /// @throws ArgumentError if the step or an option is out of range: 0 <= floor <= peak, both
  ///   finite, and 0 <= warmup_steps < total_steps.
  NHA_INLINE double learning_rate(Index step) const {
    check_argument(std::isfinite(peak) && peak >= 0, "peak is ", peak, "; expected 0 or more");
    check_argument(floor >= 0 && floor <= peak, "floor is ", floor, "; expected 0 to peak, ", peak);
    check_argument(warmup_steps >= 0 && warmup_steps < total_steps, "warmup_steps is ",
                   warmup_steps, "; expected 0 to less than total_steps, ", total_steps);
    check_argument(step >= 0, "step is ", step, "; expected 0 or more");
    if (step < warmup_steps)
      return peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps + 1);
    if (step >= total_steps) return floor;
    const double passed =
        static_cast<double>(step - warmup_steps) / static_cast<double>(total_steps - warmup_steps);
    constexpr double kPi = 3.14159265358979323846;
    return floor + (peak - floor) * (1 + std::cos(kPi * passed)) / 2;
  }
};

NHA_NAMESPACE_END
