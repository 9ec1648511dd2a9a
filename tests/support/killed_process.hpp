// SPDX-License-Identifier: MIT
// A process of its own that is killed in the middle of what it does, for guarantees that hold
// wherever a program ends.
#pragma once

#if defined(__unix__)
#define NHA_TEST_CAN_KILL 1

#include <gtest/gtest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace nha_test {

/// Calls work(n) for n = 0, 1, ... in a child process and kills it after that time.
template <class Work>
void run_and_kill(int microseconds, const Work& work) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0)
    for (int n = 0;; ++n) work(n);
  ::usleep(static_cast<useconds_t>(microseconds));
  ::kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "the work ended by itself";
}

}  // namespace nha_test

#else
#define NHA_TEST_CAN_KILL 0
#endif
