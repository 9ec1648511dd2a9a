// SPDX-License-Identifier: MIT
// How far long work has come, on stderr.
#pragma once

#include <nha/core/dtype.hpp>

#include <chrono>
#include <cstdio>
#include <string>
#include <utility>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace examples_common {

/// One line about work under way. On a terminal it is written over itself and wiped away at the
/// end; elsewhere (a log file, say) a line stays every so often, so that short work leaves none.
class StatusLine {
 public:
  /// @param between how long it is between two lines where there is no terminal
  explicit StatusLine(std::chrono::seconds between)
      : between_(on_terminal_ ? Clock::duration(std::chrono::milliseconds(100)) : between),
        last_shown_(on_terminal_ ? Clock::time_point() : Clock::now()) {}
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;
  ~StatusLine() { wipe(); }

  /// Whether it is time for another line.
  bool due() const { return Clock::now() - last_shown_ >= between_; }

  void show(const std::string& line) {
    // On a terminal without its line wrapping: a line in two rows could not be written over.
    std::fprintf(stderr, on_terminal_ ? "\r\033[?7l  %s\033[K\033[?7h" : "%s\n", line.c_str());
    last_shown_ = Clock::now();
    shown_ = true;
  }

  /// Makes room for other output.
  void wipe() {
    if (on_terminal_ && std::exchange(shown_, false)) std::fputs("\r\033[K", stderr);
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

  bool on_terminal_ = stderr_is_terminal();
  bool shown_ = false;
  Clock::duration between_;
  Clock::time_point last_shown_;
};

/// Counts up to a total, in percent.
class Progress {
 public:
  Progress(std::string what, nha::Index total)
      : what_(std::move(what)), total_(total), line_(std::chrono::seconds(3)) {}

  void reached(nha::Index done) {
    if (!line_.due()) return;
    const auto percent =
        static_cast<int>(100 * static_cast<double>(done) / static_cast<double>(total_));
    line_.show(what_ + ": " + std::to_string(percent) + "%");
  }

 private:
  std::string what_;
  nha::Index total_;
  StatusLine line_;
};

}  // namespace examples_common
