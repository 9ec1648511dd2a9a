// SPDX-License-Identifier: MIT
// Progress: how far long work has come, on stderr.
#pragma once

#include <nha/core/dtype.hpp>

#include <chrono>
#include <cstdio>
#include <string>
#include <utility>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace byte_lm {

/// Counts up to a total. On a terminal a percentage that is wiped away at the end; elsewhere (a log
/// file, say) a line every few seconds, so that short work leaves none.
class Progress {
 public:
  Progress(std::string what, nha::Index total)
      : what_(std::move(what)), total_(total), last_line_(Clock::now()) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() {
    if (on_terminal_ && percent_ >= 0) std::fputs("\r\033[K", stderr);
  }

  void reached(nha::Index done) {
    const auto percent =
        static_cast<int>(100 * static_cast<double>(done) / static_cast<double>(total_));
    if (percent == std::exchange(percent_, percent)) return;
    if (on_terminal_) {
      std::fprintf(stderr, "\r  %s: %d%%", what_.c_str(), percent);
    } else if (Clock::now() - last_line_ > std::chrono::seconds(3)) {
      std::fprintf(stderr, "%s: %d%%\n", what_.c_str(), percent);
      last_line_ = Clock::now();
    }
  }

 private:
  using Clock = std::chrono::steady_clock;

  static bool stderr_is_terminal() {
#if __has_include(<unistd.h>)
    return ::isatty(2) == 1;
#else
    return false;
#endif
  }

  std::string what_;
  nha::Index total_;
  Clock::time_point last_line_;
  int percent_ = -1;
  bool on_terminal_ = stderr_is_terminal();
};

}  // namespace byte_lm
