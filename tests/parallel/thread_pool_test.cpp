// SPDX-License-Identifier: MIT
#include <nha/parallel/thread_pool.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "parallel/executor_cases.hpp"
#include "support/expect_error.hpp"

namespace {

using nha::Index;

TEST(ThreadPool, RunsEachTaskOnce) {
  for (Index workers : {1, 2, 3, 8}) {
    nha::ThreadPool pool(workers);
    EXPECT_EQ(pool.workers(), workers);
    for (Index tasks : {0, 1, 2, 3, 7, 100}) nha_test::expect_each_task_once(pool, tasks);
  }
}

TEST(ThreadPool, ResultsAreSeenAfterRun) {
  nha::ThreadPool pool(3);
  nha_test::expect_results_seen(pool);
}

TEST(ThreadPool, TheOperatorGivesWhatItGivesOnOneThread) {
  nha::ThreadPool pool(3);
  nha_test::expect_operator_unchanged(pool);
}

TEST(ThreadPool, UsesItsThreads) {
  nha::ThreadPool pool(2);
  // Each of the two tasks waits for the other to have begun.
  std::atomic<int> begun{0};
  auto task = [&](Index, Index) {
    ++begun;
    while (begun.load() < 2) std::this_thread::yield();
  };
  pool.run(2, task);
  EXPECT_EQ(begun.load(), 2);
}

TEST(ThreadPool, WorksAgainAfterItsThreadsSlept) {
  nha::ThreadPool pool(3);
  nha_test::expect_each_task_once(pool, 50);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  nha_test::expect_each_task_once(pool, 50);
}

TEST(ThreadPool, CallersTakeTurns) {
  nha::ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::vector<Index> sums(4, 0);
  for (Index& sum : sums)
    callers.emplace_back([&pool, &sum] {
      for (int round = 0; round < 50; ++round) {
        std::atomic<Index> total{0};
        auto task = [&](Index i, Index) { total += i; };
        pool.run(20, task);
        sum += total.load();
      }
    });
  for (std::thread& caller : callers) caller.join();
  for (Index sum : sums) EXPECT_EQ(sum, 50 * 190);
}

TEST(ThreadPool, CalledFromItsOwnTaskRunsThere) {
  nha::ThreadPool pool(3);
  nha_test::expect_nested_calls_end(pool, pool);
}

TEST(ThreadPool, CalledFromATaskOfAnotherPoolRunsThere) {
  nha::ThreadPool first(3), second(2);
  nha_test::expect_nested_calls_end(first, second);
  // Two callers that take the two pools in opposite order: neither waits for the other.
  std::thread other([&] { nha_test::expect_nested_calls_end(second, first); });
  nha_test::expect_nested_calls_end(first, second);
  other.join();
}

TEST(ThreadPool, CalledFromAJobOfOneTaskUsesItsThreads) {
  nha::ThreadPool pool(2);
  const nha_test::TimeLimit limit;
  std::atomic<int> begun{0};
  auto both = [&](Index, Index) {
    ++begun;
    while (begun.load() < 2) std::this_thread::yield();
  };
  auto only = [&](Index, Index) { pool.run(2, both); };
  pool.run(1, only);
  EXPECT_EQ(begun.load(), 2);
}

TEST(ThreadPool, TakesTheMachinesNumberOfThreadsAndRefusesOthers) {
  EXPECT_GE(nha::ThreadPool().workers(), 1);
  NHA_EXPECT_ERROR(nha::ThreadPool(-1), nha::ArgumentError, "workers of ThreadPool is -1");
  NHA_EXPECT_ERROR(nha::ThreadPool(1025), nha::ArgumentError, "expected 0 to 1024");
}

}  // namespace
