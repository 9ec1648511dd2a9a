// SPDX-License-Identifier: MIT
// EigenExecutor: tasks on a thread pool of Eigen, which a program may have already.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/parallel/executor.hpp>

#include <unsupported/Eigen/CXX11/ThreadPool>

#include <algorithm>
#include <atomic>

NHA_ISA_NAMESPACE_BEGIN

/// Runs tasks on the calling thread and on a pool of Eigen that it does not own; the pool of an
/// Eigen::ThreadPoolDevice is its getPool(). Called from a thread of the pool, or from a task,
/// run() runs all tasks on that thread. Waiting for the others there could wait for ever.
///
/// The pool may allocate when work is given to it; nha::ThreadPool does not. Where the pool's
/// Schedule throws, fewer threads help, and the calling thread does the rest.
class EigenExecutor {
 public:
  /// @param pool must live as long as the executor
  explicit EigenExecutor(Eigen::ThreadPoolInterface& pool) noexcept : pool_(&pool) {}

  Index workers() const noexcept { return pool_->NumThreads() + 1; }

  void run(Index tasks, TaskRef task) const noexcept {
    const Index helpers = std::min<Index>(tasks - 1, pool_->NumThreads());
    if (helpers < 1 || detail::in_shared_task || pool_->CurrentThreadId() >= 0) {
      Serial().run(tasks, task);
      return;
    }
    Job job{task, tasks, static_cast<unsigned>(helpers)};
    for (Index worker = 1; worker <= helpers; ++worker)
      if (!schedule(job, worker)) job.helping.Notify();  // in place of the helper
    job.take_tasks(0);
    job.helping.Wait();
  }

 private:
  struct Job {
    Job(TaskRef given, Index count, unsigned helpers)
        : task(given), tasks(count), helping(helpers) {}

    void take_tasks(Index worker) noexcept {
      const detail::SharedTaskMark mark;
      for (Index i = next.fetch_add(1, std::memory_order_relaxed); i < tasks;
           i = next.fetch_add(1, std::memory_order_relaxed))
        task(i, worker);
    }

    TaskRef task;
    Index tasks;
    std::atomic<Index> next{0};
    Eigen::Barrier helping;
  };

  /// Whether the pool has taken a helper. One that it has not taken never runs.
  bool schedule(Job& job, Index worker) const noexcept {
    const auto help = [&job, worker] {
      job.take_tasks(worker);
      job.helping.Notify();
    };
#if NHA_HAS_EXCEPTIONS
    try {
      pool_->Schedule(help);
    } catch (...) {
      return false;
    }
#else
    pool_->Schedule(help);
#endif
    return true;
  }

  Eigen::ThreadPoolInterface* pool_;
};

NHA_ISA_NAMESPACE_END
