// SPDX-License-Identifier: MIT
// Stopwatch: how long something took.
#pragma once

#include <chrono>

namespace examples_common {

/// Runs from its construction on.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - started_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point started_ = Clock::now();
};

}  // namespace examples_common
