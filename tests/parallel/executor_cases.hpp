// SPDX-License-Identifier: MIT
// What every executor must do, for the tests of each.
#pragma once

#include <nha/attention/prefill.hpp>
#include <nha/attention/step.hpp>
#include <nha/parallel/executor.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "support/random_case.hpp"
#include "support/time_limit.hpp"

namespace nha_test {

/// Each task once, with a worker number that no other running task has.
template <nha::Executor E>
void expect_each_task_once(E& executor, Index tasks) {
  std::vector<std::atomic<int>> runs(static_cast<std::size_t>(tasks));
  std::vector<std::atomic<bool>> busy(static_cast<std::size_t>(executor.workers()));
  std::atomic<int> clashes{0};
  auto task = [&](Index i, Index worker) {
    if (worker < 0 || worker >= executor.workers()) {
      ++clashes;
      return;
    }
    std::atomic<bool>& mine = busy[static_cast<std::size_t>(worker)];
    if (mine.exchange(true)) ++clashes;
    ++runs[static_cast<std::size_t>(i)];
    mine.store(false);
  };
  executor.run(tasks, task);
  EXPECT_EQ(clashes.load(), 0);
  for (Index i = 0; i < tasks; ++i)
    ASSERT_EQ(runs[static_cast<std::size_t>(i)].load(), 1) << "task " << i << " of " << tasks;
}

/// What tasks wrote is seen after run, also where the memory is plain.
template <nha::Executor E>
void expect_results_seen(E& executor) {
  std::vector<Index> values(257, 0);
  for (Index round = 1; round <= 200; ++round) {
    auto task = [&](Index i, Index) { values[static_cast<std::size_t>(i)] += i; };
    executor.run(static_cast<Index>(values.size()), task);
    for (Index i = 0; i < static_cast<Index>(values.size()); ++i)
      ASSERT_EQ(values[static_cast<std::size_t>(i)], i * round);
  }
}

/// The operator gives bit for bit what it gives on one thread, in prefill and in steps.
template <nha::Executor E>
void expect_operator_unchanged(E& executor) {
  const RandomCase<float> random({.batch = 3, .tokens = 70, .kv_heads = 2, .group = 2});
  const nha::AttentionOptions options{.window = 9};
  const auto run = [&](auto& on) {
    CaseOutputs<float> out(random.shape);
    nha::AttentionState<float> state(random.attention_shape(), options);
    nha::Workspace workspace;
    nha::prefill(random.inputs().tokens(0, 69), state, out.tokens(0, 69), workspace, on);
    nha::step(random.inputs().tokens(69, 1), state, out.tokens(69, 1), workspace, on);
    return out;
  };
  const nha::Serial serial;
  const auto one = run(serial);
  const auto many = run(executor);
  for (Index i = 0; i < one.o.size(); ++i) ASSERT_EQ(many.o.data()[i], one.o.data()[i]);
}

/// Tasks of `outer` that call run() of `inner`, and the operator on it, end, with each inner task
/// run once on the thread of the outer one.
template <nha::Executor Outer, nha::Executor Inner>
void expect_nested_calls_end(Outer& outer, Inner& inner) {
  const TimeLimit limit;
  constexpr Index kOuter = 12, kInner = 5;
  std::vector<std::atomic<int>> runs(kOuter * kInner);
  std::atomic<int> elsewhere{0};
  auto task = [&](Index i, Index) {
    const auto here = std::this_thread::get_id();
    auto nested = [&](Index j, Index worker) {
      ++runs[static_cast<std::size_t>(i * kInner + j)];
      if (worker != 0 || std::this_thread::get_id() != here) ++elsewhere;
    };
    inner.run(kInner, nested);
    if (i % 4 == 0) expect_operator_unchanged(inner);
  };
  outer.run(kOuter, task);
  for (const std::atomic<int>& count : runs) EXPECT_EQ(count.load(), 1);
  EXPECT_EQ(elsewhere.load(), 0);
  expect_each_task_once(outer, kOuter);  // and both work as before
  expect_each_task_once(inner, kOuter);
}

}  // namespace nha_test
