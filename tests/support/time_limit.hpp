// SPDX-License-Identifier: MIT
// TimeLimit: ends the program when a test waits for ever.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace nha_test {

/// While it lives, the program may take this long; then it is aborted with a message, since nothing
/// else ends a thread that waits for itself.
class TimeLimit {
 public:
  explicit TimeLimit(std::chrono::milliseconds limit = std::chrono::seconds(60))
      : watch_([this, end = std::chrono::steady_clock::now() + limit] {
          while (!done_.load()) {
            if (std::chrono::steady_clock::now() > end) {
              std::fputs("the test takes longer than its time limit\n", stderr);
              std::abort();
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
          }
        }) {}
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;
  ~TimeLimit() {
    done_.store(true);
    watch_.join();
  }

 private:
  std::atomic<bool> done_{false};  // before the thread that reads it
  std::thread watch_;
};

}  // namespace nha_test
