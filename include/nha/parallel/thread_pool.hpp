// SPDX-License-Identifier: MIT
// ThreadPool: an executor of std::threads that live as long as it does.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/parallel/executor.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// Runs tasks on the calling thread and `workers - 1` threads of its own. Tasks are handed out one
/// by one, so unequal ones balance.
///
/// run() may be called from several threads, which then take turns. Called from a task, of this
/// pool or of another executor, it runs all tasks on the calling thread. Waiting for a turn there
/// could wait for ever. A task must not wait for another thread that calls run() of the same pool.
///
/// run() allocates nothing. Between two calls that follow each other closely the threads stay
/// awake; after a pause they sleep.
class ThreadPool {
 public:
  /// @param workers how many tasks run at once, 1 to kMostWorkers; 0 for one per hardware thread
  /// @throws ArgumentError if workers is out of range; std::system_error where the system starts no
  ///   more threads.
  explicit ThreadPool(Index workers = 0) : ThreadPool(workers_of(workers), Empty{}) {
    // The delegated constructor has ended, so should a thread not start, the destructor stops the
    // others.
    for (Index worker = 1; worker < workers_; ++worker)
      threads_.emplace_back([this, worker] { serve(worker); });
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    gate_.fetch_or(kStop, std::memory_order_release);
    gate_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  Index workers() const noexcept { return workers_; }

  void run(Index tasks, TaskRef task) {
    if (tasks <= 1 || workers_ == 1 || detail::in_shared_task) {
      Serial().run(tasks, task);
      return;
    }
    const std::lock_guard turn(turn_);
    // The gate is closed and no thread is behind it: the job can be written.
    task_ = &task;
    tasks_ = tasks;
    next_.store(0, std::memory_order_relaxed);
    generation_ += kGeneration;
    gate_.store(generation_ | kOpen, std::memory_order_release);
    gate_.notify_all();
    take_tasks(0);
    // Threads that have not woken by now need not: only those inside are waited for.
    std::uint32_t gate = gate_.fetch_and(~kOpen, std::memory_order_acquire) & ~kOpen;
    for (int spins = 0; inside(gate) != 0; gate = gate_.load(std::memory_order_acquire))
      pause(gate, spins);
  }

 private:
  struct Empty {};
  ThreadPool(Index workers, Empty) : workers_(workers) {
    threads_.reserve(static_cast<std::size_t>(workers - 1));
  }

  // The gate: how many threads are behind it (12 bits), whether it is open, whether the pool ends,
  // and the number of the job. One word, so that a thread enters only the job it has seen.
  static constexpr std::uint32_t kOpen = 1u << 12;
  static constexpr std::uint32_t kStop = 1u << 13;
  static constexpr std::uint32_t kGeneration = 1u << 14;
  static constexpr std::uint32_t inside(std::uint32_t gate) noexcept { return gate & (kOpen - 1); }

  static Index workers_of(Index workers) {
    check_argument(workers >= 0 && workers <= kMostWorkers, "workers of ThreadPool is ", workers,
                   "; expected 0 to ", kMostWorkers);
    if (workers > 0) return workers;
    return std::clamp<Index>(std::thread::hardware_concurrency(), 1, kMostWorkers);
  }

  /// Waits for the gate to differ from `gate`: awake at first, for the time a wake-up would cost.
  void pause(std::uint32_t gate, int& spins) const noexcept {
    constexpr int kSpins = 200;
    if (spins++ < kSpins)
      std::this_thread::yield();
    else
      gate_.wait(gate, std::memory_order_acquire);
  }

  void take_tasks(Index worker) noexcept {
    const detail::SharedTaskMark mark;
    for (Index i = next_.fetch_add(1, std::memory_order_relaxed); i < tasks_;
         i = next_.fetch_add(1, std::memory_order_relaxed))
      (*task_)(i, worker);
  }

  void serve(Index worker) noexcept {
    std::uint32_t done = 0;  // generation of the job last taken part in
    int spins = 0;
    for (;;) {
      std::uint32_t gate = gate_.load(std::memory_order_acquire);
      if ((gate & kStop) != 0) return;
      const std::uint32_t generation = gate / kGeneration;
      if ((gate & kOpen) == 0 || generation == done) {
        pause(gate, spins);
        continue;
      }
      if (!gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire)) continue;
      take_tasks(worker);
      done = generation;
      spins = 0;
      // The last one out wakes the caller, should it sleep.
      const std::uint32_t before = gate_.fetch_sub(1, std::memory_order_release);
      if (inside(before) == 1) gate_.notify_all();
    }
  }

  const Index workers_;
  std::mutex turn_;
  std::uint32_t generation_ = 0;
  const TaskRef* task_ = nullptr;
  Index tasks_ = 0;
  alignas(64) std::atomic<std::uint32_t> gate_{0};
  alignas(64) std::atomic<Index> next_{0};
  std::vector<std::thread> threads_;
};

NHA_ISA_NAMESPACE_END
