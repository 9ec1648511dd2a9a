// SPDX-License-Identifier: MIT
// How far long work has come, on stderr.
#pragma once

#include <nha/core/index.hpp>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace examples_common {

/// A line about work under way, or several. On a terminal they are written over themselves and
/// wiped away at the end; elsewhere (a log file, say) a line stays every so often, so that short
/// work leaves none.
class StatusLine {
 public:
  /// @param between how long it is between two lines where there is no terminal
  explicit StatusLine(std::chrono::seconds between)
      : between_(on_terminal_ ? Clock::duration(std::chrono::milliseconds(100)) : between),
        last_shown_(on_terminal_ ? Clock::time_point() : Clock::now()) {}
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;
  ~StatusLine() { wipe(); }

  bool on_terminal() const { return on_terminal_; }
  /// Whether it is time for another line.
  bool due() const { return Clock::now() - last_shown_ >= between_; }

  /// @param text one row, or on a terminal several with line ends between
  void show(std::string_view text) {
    last_shown_ = Clock::now();
    if (!on_terminal_) {
      std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size()), text.data());
      return;
    }
    // Without the terminal's line wrapping: a line in two rows could not be written over.
    std::string out = to_first_row() + "\033[?7l";
    for (rows_ = 1;; ++rows_) {
      const std::size_t end = text.find('\n');
      out.append("  ").append(text.substr(0, end)).append("\033[K");
      if (end == std::string_view::npos) break;
      out += '\n';
      text.remove_prefix(end + 1);
    }
    std::fputs((out + "\033[J\033[?7h").c_str(), stderr);
  }

  /// Makes room for other output.
  void wipe() {
    if (rows_ > 0) std::fputs((to_first_row() + "\033[J").c_str(), stderr);
    rows_ = 0;
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

  /// What brings the cursor back to where the rows on the terminal begin.
  std::string to_first_row() const {
    return rows_ > 1 ? "\r\033[" + std::to_string(rows_ - 1) + "A" : "\r";
  }

  bool on_terminal_ = stderr_is_terminal();
  int rows_ = 0;  // on the terminal now
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
