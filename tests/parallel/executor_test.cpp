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

}  // namespace
