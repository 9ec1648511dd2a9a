// SPDX-License-Identifier: MIT
// Uses what the component train adds.
#include <nha/train/schedule.hpp>

int main() {
  constexpr nha::CosineSchedule schedule{.peak = 0.5, .total_steps = 8};
  return schedule.learning_rate(0) == 0.5 && schedule.learning_rate(8) == 0.0 ? 0 : 1;
}
