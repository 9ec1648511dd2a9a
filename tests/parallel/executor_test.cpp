// SPDX-License-Identifier: MIT
#include <nha/parallel/executor.hpp>

#include <gtest/gtest.h>

#include <optional>
#include <type_traits>

#include "parallel/executor_cases.hpp"

namespace {

using nha::Index;

TEST(Executor, SerialRunsEachTaskOnceInOrder) {
  nha::Serial serial;
  nha_test::expect_each_task_once(serial, 10);
  nha_test::expect_each_task_once(serial, 0);
  Index next = 0;
  auto task = [&](Index i, Index worker) {
    EXPECT_EQ(i, next++);
    EXPECT_EQ(worker, 0);
  };
  serial.run(5, task);
  EXPECT_EQ(next, 5);
}

TEST(Executor, CopyOfATaskRefRefersToTheSameCallable) {
  Index sum = 0;
  auto task = [&](Index i, Index) { sum += i; };
  std::optional<nha::TaskRef> copy;
  {
    nha::TaskRef first = task;
    copy = first;
  }
  (*copy)(5, 0);
  EXPECT_EQ(sum, 5);
  static_assert(std::is_trivially_copyable_v<nha::TaskRef>);
}

/// An executor as a user may write one: backwards, with two worker numbers.
struct Backwards {
  Index workers() const { return 2; }
  void run(Index tasks, nha::TaskRef task) {
    for (Index i = tasks; i-- > 0;) task(i, i % 2);
  }
};

TEST(Executor, AUsersOwnGivesTheSameResult) {
  static_assert(nha::Executor<Backwards>);
  Backwards backwards;
  nha_test::expect_operator_unchanged(backwards);
}

TEST(ExecutorRef, RunsTasksOnTheExecutorItRefersTo) {
  static_assert(nha::Executor<nha::ExecutorRef> && nha::Executor<const nha::ExecutorRef>);
  static_assert(std::is_trivially_copyable_v<nha::ExecutorRef>);
  Backwards backwards;
  const nha::ExecutorRef ref = backwards;
  EXPECT_EQ(ref.workers(), 2);
  Index next = 7;
  auto task = [&](Index i, Index worker) {
    EXPECT_EQ(i, --next);
    EXPECT_EQ(worker, i % 2);
  };
  ref.run(7, task);
  EXPECT_EQ(next, 0);
  nha_test::expect_each_task_once(ref, 10);
  nha_test::expect_operator_unchanged(ref);
}

TEST(ExecutorRef, IsMadeFromAConstExecutor) {
  const nha::Serial serial;
  nha_test::expect_each_task_once(serial, 3);
  const nha::ExecutorRef ref = serial;
  EXPECT_EQ(ref.workers(), 1);
  nha_test::expect_each_task_once(ref, 3);
}

TEST(ExecutorRef, CopyRefersToTheSameExecutor) {
  struct Counting {
    Index workers() const noexcept { return 1; }
    void run(Index tasks, nha::TaskRef) { seen += tasks; }
    Index seen = 0;
  } counting;
  const auto copied = [](auto& ref) { return nha::ExecutorRef(ref); };  // of const and of not const
  nha::ExecutorRef first = counting;
  const nha::ExecutorRef second = copied(first);
  const nha::ExecutorRef third = copied(second);
  {
    nha::Serial serial;
    first = serial;
  }
  auto task = [](Index, Index) {};
  second.run(2, task);
  third.run(3, task);
  EXPECT_EQ(counting.seen, 5);
}

#if defined(__cpp_exceptions)
TEST(ExecutorRef, PassesOnWhatTheExecutorThrows) {
  struct Throwing {
    Index workers() const noexcept { return 1; }
    void run(Index, nha::TaskRef) { throw 5; }
  } throwing;
  const nha::ExecutorRef ref = throwing;
  auto task = [](Index, Index) {};
  EXPECT_THROW(ref.run(1, task), int);
}
#endif

}  // namespace
