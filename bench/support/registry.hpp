// SPDX-License-Identifier: MIT
// How the files of the program announce their benchmarks: each has a Group, main() adds them all.
#pragma once

#include <benchmark/benchmark.h>

#include <string>
#include <utility>
#include <vector>

namespace nha_bench {

inline std::vector<void (*)()>& groups() {
  static std::vector<void (*)()> all;
  return all;
}

/// A file's benchmarks: `add` calls add_benchmark() for each.
struct Group {
  explicit Group(void (*add)()) { groups().push_back(add); }
};

/// Adds one benchmark, body(benchmark::State&), which calls measure().
template <class Body>
void add_benchmark(const std::string& name, Body body) {
  benchmark::RegisterBenchmark(name.c_str(), std::move(body))
      ->Iterations(1)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace nha_bench
