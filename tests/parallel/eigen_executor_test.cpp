// SPDX-License-Identifier: MIT
#include <nha/config.hpp>
#include <nha/parallel/eigen_executor.hpp>
#include <nha/parallel/thread_pool.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/executor_cases.hpp"
#include "support/time_limit.hpp"

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

TEST(EigenExecutor, CalledFromItsOwnTaskRunsThere) {
  Eigen::ThreadPool pool(2);
  nha::EigenExecutor executor(pool);
  nha_test::expect_nested_calls_end(executor, executor);
  nha::ThreadPool other(2);
  nha_test::expect_nested_calls_end(executor, other);
  nha_test::expect_nested_calls_end(other, executor);
}

#if NHA_HAS_EXCEPTIONS
/// A pool that takes `good` tasks and refuses the others.
class RefusingPool : public Eigen::ThreadPoolInterface {
 public:
  RefusingPool(int threads, int good) : pool_(threads), good_(good) {}
  void Schedule(std::function<void()> task) override {
    if (good_-- <= 0) throw std::bad_alloc();
    pool_.Schedule(std::move(task));
  }
  int NumThreads() const override { return pool_.NumThreads(); }
  int CurrentThreadId() const override { return pool_.CurrentThreadId(); }

 private:
  Eigen::ThreadPool pool_;
  int good_;
};

TEST(EigenExecutor, DoesWithoutTheHelpersThatThePoolRefuses) {
  const nha_test::TimeLimit limit;
  for (int good : {0, 1, 2, 3}) {
    RefusingPool pool(3, good);
    const nha::EigenExecutor executor(pool);
    std::vector<std::atomic<int>> runs(64);
    std::atomic<bool> returned{false};
    std::atomic<int> late{0};
    auto task = [&](Index i, Index) {
      if (i % 8 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (returned.load()) ++late;
      ++runs[static_cast<std::size_t>(i)];
    };
    executor.run(64, task);
    returned.store(true);
    for (const std::atomic<int>& count : runs) EXPECT_EQ(count.load(), 1) << good;
    EXPECT_EQ(late.load(), 0) << good;
  }
}
#endif

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
