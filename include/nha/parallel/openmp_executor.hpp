// SPDX-License-Identifier: MIT
// OpenMpExecutor: tasks on OpenMP's threads. Compile with -fopenmp.
#pragma once

#ifndef _OPENMP
#error "nha/parallel/openmp_executor.hpp needs OpenMP: compile with -fopenmp"
#endif

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/parallel/executor.hpp>

#include <omp.h>

NHA_ISA_NAMESPACE_BEGIN

/// Runs tasks in a parallel region of OpenMP. Inside another parallel region, or inside a task of
/// another executor, all of them run on the calling thread.
class OpenMpExecutor {
 public:
  /// @param workers how many tasks run at once, 1 to kMostWorkers; 0 for as many as OpenMP would
  ///   use
  /// @throws ArgumentError if workers is out of range.
  explicit OpenMpExecutor(Index workers = 0)
      : workers_(workers == 0 ? omp_get_max_threads() : static_cast<int>(workers)) {
    check_argument(workers >= 0 && workers <= kMostWorkers, "workers of OpenMpExecutor is ",
                   workers, "; expected 0 to ", kMostWorkers);
  }

  Index workers() const noexcept { return workers_; }

  void run(Index tasks, TaskRef task) const noexcept {
    if (tasks <= 1 || workers_ == 1 || detail::in_shared_task || omp_in_parallel() != 0) {
      Serial().run(tasks, task);
      return;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(workers_)
    for (Index i = 0; i < tasks; ++i) {
      const detail::SharedTaskMark mark;
      task(i, omp_get_thread_num());
    }
  }

 private:
  int workers_;
};

NHA_ISA_NAMESPACE_END
