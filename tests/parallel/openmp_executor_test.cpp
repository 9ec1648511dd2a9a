// SPDX-License-Identifier: MIT
#include <nha/parallel/openmp_executor.hpp>

#include <gtest/gtest.h>

#include "parallel/executor_cases.hpp"
#include "support/expect_error.hpp"

namespace {

using nha::Index;

TEST(OpenMpExecutor, RunsEachTaskOnce) {
  nha::OpenMpExecutor executor(3);
  EXPECT_EQ(executor.workers(), 3);
  for (Index tasks : {0, 1, 2, 3, 100}) nha_test::expect_each_task_once(executor, tasks);
  nha_test::expect_results_seen(executor);
}

TEST(OpenMpExecutor, TheOperatorGivesWhatItGivesOnOneThread) {
  nha::OpenMpExecutor executor(3);
  nha_test::expect_operator_unchanged(executor);
}

TEST(OpenMpExecutor, CalledFromItsOwnTaskRunsThere) {
  nha::OpenMpExecutor executor(3);
  const int levels = omp_get_max_active_levels();
  omp_set_max_active_levels(2);  // OpenMP would make threads for the inner region
  nha_test::expect_nested_calls_end(executor, executor);
  omp_set_max_active_levels(levels);
}

TEST(OpenMpExecutor, TakesOpenMpsNumberOfThreadsAndRefusesOthers) {
  EXPECT_EQ(nha::OpenMpExecutor().workers(), omp_get_max_threads());
  NHA_EXPECT_ERROR(nha::OpenMpExecutor(-1), nha::ArgumentError, "workers of OpenMpExecutor is -1");
}

}  // namespace
