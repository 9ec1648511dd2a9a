// SPDX-License-Identifier: MIT
// Executor: how the operator runs tasks on threads. Serial and ExecutorRef are here; the others
// have their own headers.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>

#include <concepts>
#include <memory>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Whether this thread runs a task of a job that an executor has shared out among threads.
inline constinit thread_local bool in_shared_task = false;

/// Marks this thread while it lives.
class SharedTaskMark {
 public:
  SharedTaskMark() noexcept : before_(in_shared_task) { in_shared_task = true; }
  SharedTaskMark(const SharedTaskMark&) = delete;
  SharedTaskMark& operator=(const SharedTaskMark&) = delete;
  ~SharedTaskMark() { in_shared_task = before_; }

 private:
  bool before_;
};

}  // namespace detail

class TaskRef;

/// What a TaskRef can refer to. A TaskRef itself is copied instead.
template <class F>
concept Task = std::invocable<F&, Index, Index> && !std::is_same_v<std::remove_const_t<F>, TaskRef>;

/// Refers to a callable `void(Index task, Index worker)` that does not throw. It owns nothing and
/// is valid as long as the callable; an executor calls it for task 0 .. tasks-1.
class TaskRef {
 public:
  /// Implicit, as references are.
  template <Task F>
  TaskRef(F& callable) noexcept
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(callable)))),
        call_([](void* object, Index task, Index worker) noexcept {
          (*static_cast<F*>(object))(task, worker);
        }) {}

  void operator()(Index task, Index worker) const noexcept { call_(object_, task, worker); }

 private:
  void* object_;
  void (*call_)(void*, Index, Index) noexcept;
};

/// Runs independent tasks. `workers()` is the largest number that run at once; the worker number
/// handed to a task is in 0 .. workers()-1 and belongs to no other task running at that moment, so
/// it may index scratch memory. `run` returns when every task has ended. Which worker runs a task
/// may differ from run to run; results never depend on it.
///
/// A task may call `run` itself, of its own executor or another. The executors of the library then
/// run all tasks of that call on the calling thread, so no combination of them waits for itself.
template <class E>
concept Executor = requires(E& executor, Index tasks, TaskRef task) {
  { executor.workers() } -> std::convertible_to<Index>;
  executor.run(tasks, task);
};

/// Refers to any executor, so that kernels are compiled once and not once for each executor. It
/// owns nothing and is valid as long as the executor.
class ExecutorRef {
 public:
  /// Implicit, as references are. Of a temporary it is valid for the call that it is made for. An
  /// ExecutorRef itself is copied instead.
  template <class E>
  requires(Executor<std::remove_reference_t<E>> &&
           !std::is_same_v<std::remove_cvref_t<E>, ExecutorRef>) ExecutorRef(E&& executor)
  noexcept
      : executor_(const_cast<void*>(static_cast<const void*>(std::addressof(executor)))),
        workers_([](void* object) -> Index {
          return static_cast<std::remove_reference_t<E>*>(object)->workers();
        }),
        run_([](void* object, Index tasks, TaskRef task) {
          static_cast<std::remove_reference_t<E>*>(object)->run(tasks, task);
        }) {}

  Index workers() const { return workers_(executor_); }
  /// Throws what the executor throws.
  void run(Index tasks, TaskRef task) const { run_(executor_, tasks, task); }

 private:
  void* executor_;
  Index (*workers_)(void*);
  void (*run_)(void*, Index, TaskRef);
};

/// Runs every task on the calling thread.
struct Serial {
  Index workers() const noexcept { return 1; }
  void run(Index tasks, TaskRef task) const noexcept {
    for (Index i = 0; i < tasks; ++i) task(i, 0);
  }
};

/// The executor of calls that are given none.
inline constexpr Serial kSerial;

NHA_ISA_NAMESPACE_END
