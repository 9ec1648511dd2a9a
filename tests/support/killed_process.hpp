// SPDX-License-Identifier: MIT
// A process of its own that is killed in the middle of what it does, for guarantees that hold
// wherever a program ends.
#pragma once

#if defined(__unix__)
#define NHA_TEST_CAN_KILL 1

#include <gtest/gtest.h>

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <utility>

namespace nha_test {

/// Calls work(n) for n = 0, 1, ... in a child process and kills it as soon as ready() says so.
template <class Work, class Ready>
void run_and_kill(const Work& work, const Ready& ready) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0)
    for (int n = 0;; ++n) work(n);
  while (!ready() && ::waitpid(child, nullptr, WNOHANG) == 0) {
  }
  ASSERT_EQ(::kill(child, SIGKILL), 0) << "the work ended by itself";
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
}

/// Says yes once that much time has passed.
class AfterTime {
 public:
  explicit AfterTime(std::chrono::microseconds time)
      : end_(std::chrono::steady_clock::now() + time) {}
  bool operator()() const { return std::chrono::steady_clock::now() >= end_; }

 private:
  std::chrono::steady_clock::time_point end_;
};

/// Says yes once another file has the path.
class AfterReplacing {
 public:
  explicit AfterReplacing(std::string path) : path_(std::move(path)), old_(file_number()) {}
  bool operator()() const { return file_number() != old_; }

 private:
  ino_t file_number() const {
    struct stat status {};
    return ::stat(path_.c_str(), &status) == 0 ? status.st_ino : 0;
  }

  std::string path_;
  ino_t old_;
};

}  // namespace nha_test

#else
#define NHA_TEST_CAN_KILL 0
#endif
