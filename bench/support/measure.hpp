// SPDX-License-Identifier: MIT
// How a benchmark runs.
//
// Machines are shared and their clocks move, so a time alone says little. Each benchmark is one
// Google Benchmark iteration made of rounds; a round takes the thread CPU time of the work, of the
// register-only loop (peak.hpp) right before and after it, and where asked of a buffer of the same
// size (bandwidth.hpp) and of competitors, these before the work in one round and after it in the
// next. What is reported are medians over the rounds: of the time, and of each ratio taken inside
// one round.
#pragma once

#include <benchmark/benchmark.h>
#include <nha/core/index.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bandwidth.hpp"
#include "clock.hpp"
#include "peak.hpp"

namespace nha_bench {

using Task = std::function<void()>;

/// Rounds of each benchmark; the program's flag --rounds.
inline int& rounds() {
  static int count = 15;
  return count;
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// What one call of the work does, for the counters; 0 leaves a counter out.
struct Work {
  /// Multiplications and additions of the algorithm: GFLOP/s and of_peak.
  double operations = 0;
  /// Tokens times query heads: tokens/s of a head, and ns/token.
  double tokens = 0;
  /// Bytes that must be read, and how many of them are also written: GB/s, of_bandwidth (bytes over
  /// the rate of a sum) and of_traffic (over the rate of a loop that reads and writes as much).
  double bytes = 0;
  double written = 0;
  /// Bytes that these lie among, so that the loops find theirs in the same level of memory.
  double footprint = 0;
};

/// Something to measure beside the work, in every round. The counter `name` is the median of the
/// work's time over the competitor's, times `scale`, where they do unlike amounts.
struct Competitor {
  std::string name;
  Task run;
  double scale = 1;
};

/// Calls of a task that are timed together.
struct Timed {
  Task run;
  int calls = 1;

  /// Runs the task once to warm up, then chooses how many calls last long enough to time.
  explicit Timed(Task task) : run(std::move(task)) {
    constexpr double kLeastSeconds = 1e-3;
    run();
    const double once = seconds(thread_seconds);
    calls =
        std::clamp(static_cast<int>(std::ceil(kLeastSeconds / std::max(once, 1e-9))), 1, 1'000'000);
  }
  /// Seconds of one call.
  double seconds(double (*clock)()) const {
    const double start = clock();
    for (int i = 0; i < calls; ++i) run();
    return (clock() - start) / calls;
  }
};

/// Runs the rounds and sets the counters. The reported time is the median of one call.
inline void measure(benchmark::State& state, const Work& work, Task run,
                    const std::vector<Competitor>& competitors = {}) {
  const Timed timed(std::move(run));
  std::vector<Timed> others;
  for (const Competitor& competitor : competitors) others.emplace_back(competitor.run);
  std::optional<Bandwidth> bandwidth;
  if (work.bytes > 0) bandwidth.emplace(work.footprint, work.footprint * work.written / work.bytes);

  const auto count = static_cast<std::size_t>(rounds());
  std::vector<double> times(count), of_peak(count), of_bandwidth(count), of_traffic(count);
  std::vector<std::vector<double>> ratios(others.size(), std::vector<double>(count));
  for (auto _ : state) {
    for (std::size_t round = 0; round < count; ++round) {
      const double read_rate = bandwidth ? bandwidth->read_rate() : 0;
      const double update_rate = bandwidth ? bandwidth->update_rate() : 0;
      std::vector<double> theirs(others.size());
      const auto compete = [&] {
        for (std::size_t i = 0; i < others.size(); ++i)
          theirs[i] = others[i].seconds(thread_seconds);
      };
      if (round % 2 == 1) compete();
      const double before = peak_rate();
      const double time = timed.seconds(thread_seconds);
      const double peak = (before + peak_rate()) / 2;
      times[round] = time;
      of_peak[round] = work.operations / time / peak;
      if (bandwidth) {
        of_bandwidth[round] = work.bytes / time / read_rate;
        of_traffic[round] = work.bytes / time / update_rate;
      }
      if (round % 2 == 0) compete();
      for (std::size_t i = 0; i < others.size(); ++i)
        ratios[i][round] = competitors[i].scale * time / theirs[i];
    }
    state.SetIterationTime(median(times));
  }

  const double time = median(times);
  auto& counters = state.counters;
  if (work.tokens > 0) {
    counters["tokens/s"] = work.tokens / time;
    counters["ns/token"] = 1e9 * time / work.tokens;
  }
  if (work.operations > 0) {
    counters["GFLOP/s"] = 1e-9 * work.operations / time;
    counters["of_peak"] = median(of_peak);
  }
  if (bandwidth) {
    counters["GB/s"] = 1e-9 * work.bytes / time;
    counters["of_bandwidth"] = median(of_bandwidth);
    counters["of_traffic"] = median(of_traffic);
  }
  for (std::size_t i = 0; i < others.size(); ++i) counters[competitors[i].name] = median(ratios[i]);
}

}  // namespace nha_bench
