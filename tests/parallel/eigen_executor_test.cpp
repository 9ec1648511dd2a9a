// SPDX-License-Identifier: MIT
#include <nha/parallel/eigen_executor.hpp>

#include <gtest/gtest.h>

#include "parallel/executor_cases.hpp"

namespace {

using nha::Index;

TEST(EigenExecutor, RunsEachTaskOnce) {
  Eigen::ThreadPool pool(2);
  nha::EigenExecutor executor(pool);
  EXPECT_EQ(executor.workers(), 3);
  for (Index tasks : {0, 1, 2, 3, 100}) nha_test::expect_each_task_once(executor, tasks);
  nha_test::expect_results_seen(executor);
}

TEST(EigenExecutor, TheOperatorGivesWhatItGivesOnOneThread) {
  Eigen::ThreadPool pool(2);
  nha::EigenExecutor executor(pool);
  nha_test::expect_operator_unchanged(executor);
}

TEST(EigenExecutor, CalledFromThePoolsOwnThreadRunsThere) {
  Eigen::ThreadPool pool(1);
  Eigen::Barrier done(1);
  pool.Schedule([&] {
    nha::EigenExecutor executor(pool);
    nha_test::expect_each_task_once(executor, 10);
    done.Notify();
  });
  done.Wait();
}

}  // namespace
