// SPDX-License-Identifier: MIT
// The clocks of the benchmarks.
#pragma once

#include <chrono>
#include <ctime>

namespace nha_bench {

/// CPU time of the calling thread in seconds: what other processes take of a shared machine is not
/// in it.
inline double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Time on the wall in seconds, for work that several threads share.
inline double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace nha_bench
